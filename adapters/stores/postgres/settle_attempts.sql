-- Writes how attempts ended, where they are still the running ones. Rows are locked in one order,
-- so that two such statements cannot wait for each other. They are found by their ids, and that
-- one runs is asked in a way that the index of running tasks, with what it has of dead entries,
-- is not read instead.
WITH ended AS (
    SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::int[], $5::bigint[],
                         $6::bytea[], $7::text[], $8::text[])
        AS outcome (id, attempt, status, failed, delay, result, usage, error)
), fenced AS (
    SELECT number, ended.*
      FROM task JOIN ended
        ON task.id = ended.id
       AND task.attempt = CASE task.status WHEN 'running' THEN ended.attempt END
     ORDER BY number
       FOR UPDATE OF task
), settled AS (
    UPDATE task
       SET status = fenced.status,
           failures = task.failures + fenced.failed,
           rank = coalesce(task_now() + fenced.delay, task.rank),
           started_at = CASE WHEN fenced.status <> 'pending' THEN task.started_at END,
           completed_at = CASE WHEN fenced.status <> 'pending' THEN task_now() END,
           usage = fenced.usage, error = fenced.error, worker = NULL, lease_until = NULL
      FROM fenced
     WHERE task.number = fenced.number
    RETURNING task.number, task.id, task.attempt, task.status
), kept AS (
    INSERT INTO task_result (number, result)
    SELECT number, result FROM fenced WHERE result IS NOT NULL
), counted AS (
    UPDATE task_count
       SET running = running - (SELECT count(*) FROM settled),
           pending = pending + (SELECT count(*) FROM settled WHERE status = 'pending'),
           completed = completed + (SELECT count(*) FROM settled WHERE status = 'completed'),
           failed = failed + (SELECT count(*) FROM settled WHERE status = 'failed')
     WHERE slot = pg_backend_pid() % 64 AND EXISTS (SELECT FROM settled)
)
SELECT id, attempt, status FROM settled
