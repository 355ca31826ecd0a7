UPDATE task
SET is_waiting = 0
WHERE number IN (
    SELECT number FROM task
    WHERE status = 'pending' AND is_waiting = 1 AND due_at <= :now
    ORDER BY due_at
    LIMIT :limit
)
