-- Takes what is due, for each executor as much as it has room for; what another worker is just
-- taking is passed over. Rows are looked up by the numbers found, for how many those are is not
-- known to the planner: with a join it would rather read all tasks.
WITH due AS (
    SELECT taken.number
      FROM unnest($2::text[], $3::int[]) AS room (executor, free)
     CROSS JOIN LATERAL (
        SELECT number FROM task
         WHERE status = 'pending' AND executor = room.executor AND rank <= task_now()
         ORDER BY rank, number
         LIMIT free
           FOR UPDATE SKIP LOCKED
     ) AS taken
), claimed AS (
    UPDATE task
       SET status = 'running', attempt = attempt + 1, started_at = task_now(),
           worker = $1, lease_until = task_now() + $4::bigint
     WHERE number = ANY (ARRAY(SELECT number FROM due))
    RETURNING *
), counted AS (
    UPDATE task_count
       SET pending = pending - (SELECT count(*) FROM claimed),
           running = running + (SELECT count(*) FROM claimed)
     WHERE slot = pg_backend_pid() % 64 AND EXISTS (SELECT FROM claimed)
)
SELECT claimed.*, NULL::bytea AS result, input, options
  FROM claimed JOIN task_payload USING (number)
 WHERE task_payload.number = ANY (ARRAY(SELECT number FROM claimed))
 ORDER BY executor, rank, number
