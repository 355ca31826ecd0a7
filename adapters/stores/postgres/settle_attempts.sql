-- Writes how attempts ended, where they are still the running ones. Rows are locked in one order,
-- so that two such statements cannot wait for each other. They are found by their ids, and that
-- one runs is asked in a way that the index of running tasks, with what it has of dead entries,
-- is not read instead. Where a cancel was requested, nothing else counts any more.
WITH ended AS (
    SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::int[], $5::bigint[],
                         $6::bytea[], $7::text[], $8::text[], $9::text[], $10::text[],
                         $11::int[])
        AS outcome (id, attempt, status, failed, delay, result, usage, error, past, error_code,
                    max_crashes)
), fenced AS (
    SELECT number, ended.*,
           CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
                WHEN crashes + 1 > ended.max_crashes THEN 'failed'
                ELSE ended.status END AS becomes,
           CASE WHEN cancel_requested_at IS NULL THEN task_now() + ended.delay END AS due
      FROM task JOIN ended
        ON task.id = ended.id
       AND task.attempt = CASE task.status WHEN 'running' THEN ended.attempt END
     ORDER BY number
       FOR UPDATE OF task
), settled AS (
    UPDATE task
       SET status = becomes,
           failures = failures + CASE becomes WHEN 'cancelled' THEN 0 ELSE failed END,
           crashes = crashes + CASE WHEN max_crashes IS NULL THEN 0 ELSE 1 END,
           due_at = coalesce(due, due_at),
           rank = coalesce(due - coalesce(due_at, rank) + rank, rank),
           is_waiting = coalesce(due > task_now(), false),
           started_at = CASE WHEN becomes <> 'pending' THEN started_at END,
           completed_at = CASE WHEN becomes <> 'pending' THEN task_now() END,
           cancel_requested_at = CASE becomes WHEN 'cancelled'
                                 THEN coalesce(cancel_requested_at, task_now()) END,
           usage = CASE becomes WHEN 'completed' THEN fenced.usage END,
           error = CASE becomes WHEN 'failed' THEN fenced.error END,
           progress = CASE WHEN becomes <> 'pending' THEN progress END,
           past_attempts = CASE WHEN becomes <> 'pending' THEN past_attempts
               ELSE task_history(past_attempts, task.attempt, executor, started_at, past, error_code,
                                 recorded)
               END,
           worker = NULL, lease_until = NULL
      FROM fenced
     WHERE task.number = fenced.number
    RETURNING task.number, task.id, task.attempt, task.status, task.owner, task.executor, task.model,
              task.usage::json AS spent,
              CASE becomes WHEN 'pending' THEN task_lost_until(task) END AS lost_until
), kept AS (
    INSERT INTO task_result (number, result)
    SELECT number, result FROM fenced WHERE becomes = 'completed'
), forgotten AS (
    DELETE FROM task_event
     WHERE number = ANY (ARRAY(SELECT number FROM settled WHERE lost_until > 0))
       AND event <= (SELECT lost_until FROM settled WHERE settled.number = task_event.number)
), spent AS (
    INSERT INTO task_usage AS known
        (slot, owner, executor, model, input_tokens, output_tokens, total_tokens)
    SELECT pg_backend_pid() % 64, owner, executor, task_usage_model(owner, executor, model) AS name,
           sum((spent ->> 'input_tokens')::bigint), sum((spent ->> 'output_tokens')::bigint),
           sum((spent ->> 'total_tokens')::bigint)
      FROM settled
     WHERE spent IS NOT NULL
     GROUP BY owner, executor, name
     ORDER BY owner, executor, name
        ON CONFLICT (owner, executor, model, slot) DO UPDATE
       SET input_tokens = known.input_tokens + excluded.input_tokens,
           output_tokens = known.output_tokens + excluded.output_tokens,
           total_tokens = known.total_tokens + excluded.total_tokens
), counted AS (
    UPDATE task_count
       SET running = running - (SELECT count(*) FROM settled),
           pending = pending + (SELECT count(*) FROM settled WHERE status = 'pending'),
           completed = completed + (SELECT count(*) FROM settled WHERE status = 'completed'),
           failed = failed + (SELECT count(*) FROM settled WHERE status = 'failed'),
           cancelled = cancelled + (SELECT count(*) FROM settled WHERE status = 'cancelled')
     WHERE slot = pg_backend_pid() % 64 AND EXISTS (SELECT FROM settled)
)
SELECT id, attempt, status FROM settled
