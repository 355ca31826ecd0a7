-- Skips along the index: one step an owner, however many tasks there are.
WITH RECURSIVE found (owner) AS (
    SELECT min(owner) FROM task
    UNION ALL
    SELECT (SELECT min(task.owner) FROM task WHERE task.owner > found.owner)
    FROM found
    WHERE found.owner IS NOT NULL
)
SELECT owner FROM found WHERE owner IS NOT NULL
