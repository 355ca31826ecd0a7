DELETE FROM task
WHERE number IN (
    SELECT number FROM task WHERE completed_at IS NOT NULL ORDER BY created_at, number LIMIT :limit
)
RETURNING status
