-- Stores as many of the new tasks, in their order, as there is room for among the pending ones, but
-- none whose idempotency key is there already: in the table and not stale (it is freed then), or
-- earlier in this statement.
-- Gives one row per new task, in order: its time of creation (null where it was not stored), whether
-- that was for its key, and how many tasks are pending, and stored at all, from now on.
WITH arriving AS (
    SELECT *, key IS NULL OR min(place) OVER (PARTITION BY owner, key) = place AS is_first
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
                  $6::float8[], $7::int[], $8::bytea[], $9::bytea[], $10::int[], $11::bigint[],
                  $12::bigint[], $13::bigint[], $14::bigint[], $15::text[], $16::text[], $17::bytea[])
      WITH ORDINALITY AS new (id, owner, executor, model, metadata,
                              timeout_seconds, max_attempts, input, options, priority, head_start,
                              delay, run_at, time_left, retry_of, key, fingerprint, place)
), freed AS (
    UPDATE task SET idempotency_key = NULL
      FROM arriving
     WHERE task.owner = arriving.owner AND idempotency_key = key
       AND is_first AND created_at < task_now() - $19::bigint
    RETURNING task.number
), fresh AS (
    SELECT *, row_number() OVER (ORDER BY place) AS turn,
           greatest(task_now(), coalesce(run_at, task_now() + delay)) AS due_at
      FROM arriving
     WHERE is_first AND (key IS NULL OR NOT EXISTS (
               SELECT FROM task WHERE task.owner = arriving.owner AND idempotency_key = key
                                  AND created_at >= task_now() - $19::bigint))
), waiting AS (
    SELECT sum(pending) AS pending,
           sum(pending + running + completed + failed + cancelled) AS total
      FROM task_count
), stored AS (
    INSERT INTO task (id, owner, status, executor, model, metadata, timeout_seconds, max_attempts,
                      priority, not_before, deadline, retry_of, rank, due_at, is_waiting,
                      created_at, idempotency_key, fingerprint)
    SELECT id, owner, 'pending', executor, model, metadata, timeout_seconds, max_attempts,
           priority, coalesce(run_at, task_now() + delay), task_now() + time_left, retry_of,
           due_at - head_start, due_at, due_at > task_now(), task_now(), key, fingerprint
      FROM fresh, waiting, (SELECT count(*) FROM freed) AS freed_before
     WHERE turn <= $18::bigint - pending
     ORDER BY place
        ON CONFLICT (owner, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING number, id, created_at
), payload AS (
    INSERT INTO task_payload (number, input, options)
    SELECT number, input, options FROM stored JOIN arriving USING (id)
), counted AS (
    UPDATE task_count SET pending = pending + (SELECT count(*) FROM stored)
     WHERE slot = pg_backend_pid() % 64
)
SELECT created_at,
       arriving.key IS NOT NULL AND coalesce(
           min(turn) OVER (PARTITION BY arriving.owner, arriving.key) <= $18 - pending, true
       ) AS is_repeated,
       (pending + (SELECT count(*) FROM stored))::bigint AS pending,
       (total + (SELECT count(*) FROM stored))::bigint AS total
  FROM arriving LEFT JOIN fresh USING (id) LEFT JOIN stored USING (id), waiting
 ORDER BY arriving.place
