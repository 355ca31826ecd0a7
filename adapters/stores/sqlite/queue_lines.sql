SELECT executor, model, sum(pending), sum(running), min(due_at)
FROM (
    SELECT
        executor,
        model,
        1 AS pending,
        0 AS running,
        iif(due_at <= :now, due_at, NULL) AS due_at
    FROM task
    WHERE status = 'pending' AND owner = coalesce(:owner, owner)
    UNION ALL
    SELECT executor, model, 0, 1, NULL
    FROM task
    WHERE status = 'running' AND owner = coalesce(:owner, owner)
)
GROUP BY executor, model
