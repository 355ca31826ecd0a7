UPDATE task
SET
    status = 'running',
    attempt = :attempt,
    started_at = :started_at,
    worker = :worker,
    lease_until = :lease_until
WHERE id = :id AND status = 'pending'
