DELETE FROM task
WHERE number IN (
    SELECT number FROM task WHERE completed_at < :before ORDER BY completed_at LIMIT :limit
)
RETURNING status
