UPDATE task
SET
    recorded = recorded + :count,
    progress = coalesce(:progress, progress)
WHERE id = :id AND status = 'running' AND attempt = :attempt AND recorded = :before
RETURNING number
