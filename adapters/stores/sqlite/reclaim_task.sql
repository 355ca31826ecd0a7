UPDATE task
SET
    status = :status,
    crashes = :crashes,
    started_at = :started_at,
    completed_at = :completed_at,
    error = :error,
    worker = NULL,
    lease_until = NULL
WHERE id = :id AND status = 'running' AND attempt = :attempt AND lease_until < :monotonic
