UPDATE task
SET
    status = :status,
    failures = failures + :failed,
    completed_at = :completed_at,
    error = :error,
    worker = NULL,
    lease_until = NULL
WHERE id = :id AND status = 'running' AND attempt = :attempt AND cancel_requested_at IS NULL
