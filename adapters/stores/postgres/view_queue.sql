-- The live tasks by executor and model; `oldest`: for how long one of them has been due.
SELECT executor, model,
       count(*) FILTER (WHERE status = 'pending') AS pending,
       count(*) FILTER (WHERE status = 'running') AS running,
       max(task_now() - due_at) FILTER (WHERE status = 'pending' AND due_at <= task_now()) AS oldest
  FROM (SELECT executor, model, owner, status, due_at FROM task
         WHERE status = 'pending' AND NOT is_waiting
        UNION ALL
        SELECT executor, model, owner, status, due_at FROM task
         WHERE status = 'pending' AND is_waiting
        UNION ALL
        SELECT executor, model, owner, status, due_at FROM task
         WHERE status = 'running') AS live
 WHERE $1::text IS NULL OR owner = $1
 GROUP BY executor, model
 ORDER BY executor, model
