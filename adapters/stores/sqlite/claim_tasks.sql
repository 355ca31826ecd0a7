UPDATE task
SET
    status = 'running',
    attempt = attempt + 1,
    started_at = :now,
    worker = :worker,
    lease_until = :lease_until
WHERE number IN (
    SELECT due.number
    FROM task AS due
    WHERE due.status = 'pending' AND due.executor = :executor AND due.rank <= :now
    ORDER BY due.rank, due.number
    LIMIT :room
)
RETURNING
    id, owner, status, executor, model, timeout_seconds, max_attempts, rank,
    created_at, attempt, failures, crashes, started_at, completed_at, usage, error,
    (SELECT p.metadata FROM task_payload AS p WHERE p.number = task.number),
    NULL,
    (SELECT p.input FROM task_payload AS p WHERE p.number = task.number),
    (SELECT p.options FROM task_payload AS p WHERE p.number = task.number),
    number
