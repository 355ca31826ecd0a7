UPDATE task
SET lease_until = :lease_until
WHERE id = :id AND status = 'running' AND attempt = :attempt
