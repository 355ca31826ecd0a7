WITH gone AS (
    DELETE FROM worker WHERE until < task_now() AND name <> $1
)
INSERT INTO worker (name, executors, until) VALUES ($1, $2, task_now() + $3::bigint)
    ON CONFLICT (name) DO UPDATE SET executors = excluded.executors, until = excluded.until
