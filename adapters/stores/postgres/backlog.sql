-- For how long the first task in turn has been due, the longest of all executors; these are found
-- by leaping from one to the next along the index.
WITH RECURSIVE first AS (
    (SELECT executor, due_at FROM task WHERE status = 'pending' AND NOT is_waiting
      ORDER BY executor, rank, number LIMIT 1)
    UNION ALL
    SELECT next.* FROM first CROSS JOIN LATERAL (
        SELECT executor, due_at FROM task
         WHERE status = 'pending' AND NOT is_waiting AND executor > first.executor
         ORDER BY executor, rank, number LIMIT 1
    ) AS next
)
SELECT coalesce(task_now() - min(due_at), 0)::bigint AS age FROM first
