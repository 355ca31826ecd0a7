UPDATE task
SET
    status = :status,
    rank = coalesce(:due, rank),
    failures = failures + :failed,
    started_at = iif(:completed_at IS NULL, NULL, started_at),
    completed_at = :completed_at,
    usage = :usage,
    error = :error,
    worker = NULL,
    lease_until = NULL
WHERE id = :id AND status = 'running' AND attempt = :attempt
