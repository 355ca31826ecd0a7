UPDATE task
SET status = 'failed', completed_at = :now, error = :error
WHERE number IN (
    SELECT number FROM task
    WHERE status = 'pending' AND deadline <= :now
    ORDER BY deadline
    LIMIT :limit
)
RETURNING id
