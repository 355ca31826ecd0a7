-- Stores as many of the new tasks, in their order, as there is room for among the pending ones.
-- Gives one row per new task, in order: its time of creation (null where it was refused), and how
-- many tasks are pending, and stored at all, from now on.
WITH arriving AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
                         $6::float8[], $7::int[], $8::bytea[], $9::bytea[])
        WITH ORDINALITY AS new (id, owner, executor, model, metadata,
                                timeout_seconds, max_attempts, input, options, place)
), waiting AS (
    SELECT sum(pending) AS pending,
           sum(pending + running + completed + failed + cancelled) AS total
      FROM task_count
), stored AS (
    INSERT INTO task (id, owner, status, executor, model, metadata, timeout_seconds,
                      max_attempts, rank, created_at)
    SELECT id, owner, 'pending', executor, model, metadata, timeout_seconds,
           max_attempts, task_now(), task_now()
      FROM arriving, waiting
     WHERE place <= $10::bigint - pending
     ORDER BY place
    RETURNING number, id, created_at
), payload AS (
    INSERT INTO task_payload (number, input, options)
    SELECT number, input, options FROM stored JOIN arriving USING (id)
), counted AS (
    UPDATE task_count SET pending = pending + (SELECT count(*) FROM stored)
     WHERE slot = pg_backend_pid() % 64
)
SELECT created_at,
       (pending + (SELECT count(*) FROM stored))::bigint AS pending,
       (total + (SELECT count(*) FROM stored))::bigint AS total
  FROM arriving LEFT JOIN stored USING (id), waiting
 ORDER BY place
