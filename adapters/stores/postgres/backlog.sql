-- For how long the task has been due whose turn is next, the longest of all executors; these are
-- found by leaping from one to the next along the indexes.
WITH RECURSIVE executors (executor) AS (
    SELECT least((SELECT min(executor) FROM task WHERE status = 'pending' AND NOT is_waiting),
                 (SELECT min(executor) FROM task WHERE status = 'pending' AND is_waiting))
    UNION ALL
    SELECT least((SELECT min(executor) FROM task WHERE status = 'pending' AND NOT is_waiting
                     AND executor > executors.executor),
                 (SELECT min(executor) FROM task WHERE status = 'pending' AND is_waiting
                     AND executor > executors.executor))
      FROM executors
     WHERE executor IS NOT NULL
), next AS (
    SELECT found.due_at FROM executors CROSS JOIN LATERAL (
        (SELECT due_at, rank, number FROM task
          WHERE status = 'pending' AND NOT is_waiting AND executor = executors.executor
          ORDER BY rank, number LIMIT 1)
        UNION ALL
        (SELECT due_at, rank, number FROM task
          WHERE status = 'pending' AND is_waiting AND executor = executors.executor
            AND due_at <= task_now()
          ORDER BY due_at LIMIT 1000)
        ORDER BY rank, number LIMIT 1
    ) AS found
)
SELECT coalesce(task_now() - min(due_at), 0)::bigint AS age FROM next
