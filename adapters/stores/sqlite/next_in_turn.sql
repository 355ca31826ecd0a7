-- What became due since the last claim waits aside still; it is little.
SELECT due_at
FROM (
    SELECT * FROM (
        SELECT due_at, rank, number
        FROM task
        WHERE status = 'pending' AND executor = :executor AND is_waiting = 0
        ORDER BY rank, number
        LIMIT 1
    )
    UNION ALL
    SELECT due_at, rank, number
    FROM task INDEXED BY task_waiting
    WHERE status = 'pending' AND is_waiting = 1 AND due_at <= :now AND executor = :executor
)
ORDER BY rank, number
LIMIT 1
