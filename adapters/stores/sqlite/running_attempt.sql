SELECT cancel_requested_at
FROM task
WHERE id = :id AND status = 'running' AND attempt = :attempt
