-- What became due since the last claim waits aside still; it is little.
SELECT
    1
    + (
        SELECT count(*) FROM (
            SELECT 1 FROM task
            WHERE
                status = 'pending'
                AND executor = mine.executor
                AND is_waiting = 0
                AND (rank, number) < (mine.rank, mine.number)
            LIMIT :most
        )
    )
    + (
        SELECT count(*) FROM (
            SELECT 1 FROM task INDEXED BY task_waiting
            WHERE
                status = 'pending'
                AND is_waiting = 1
                AND due_at <= :now
                AND executor = mine.executor
                AND (rank, number) < (mine.rank, mine.number)
            LIMIT :most
        )
    )
FROM task AS mine
WHERE mine.id = :id AND mine.status = 'pending' AND mine.due_at <= :now
