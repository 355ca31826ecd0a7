-- Skips along the index: one step an executor, however many tasks there are.
WITH RECURSIVE found (executor) AS (
    SELECT min(executor) FROM task WHERE status = 'pending'
    UNION ALL
    SELECT (
        SELECT min(task.executor) FROM task
        WHERE task.status = 'pending' AND task.executor > found.executor
    )
    FROM found
    WHERE found.executor IS NOT NULL
)
SELECT executor FROM found WHERE executor IS NOT NULL
