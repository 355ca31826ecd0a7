-- Takes what is due, for each executor as much as it has room for; what another worker is just
-- taking is passed over. Tasks whose time came since the last look are brought into the order of
-- claims: those with the lowest ranks are taken at once, the others stand in turn from here on. Rows
-- are looked up by the numbers found, for how many those are is not known to the planner: with a
-- join it would rather read all tasks.
WITH room AS (
    SELECT * FROM unnest($2::text[], $3::int[]) AS room (executor, free)
), ripe AS (
    SELECT found.*
      FROM room
     CROSS JOIN LATERAL (
        SELECT number, executor, rank, deadline FROM task
         WHERE status = 'pending' AND is_waiting AND executor = room.executor
           AND due_at <= task_now()
         ORDER BY due_at
         LIMIT 1000
           FOR UPDATE SKIP LOCKED
     ) AS found
), in_turn AS (
    SELECT found.*
      FROM room
     CROSS JOIN LATERAL (
        SELECT number, executor, rank FROM task
         WHERE status = 'pending' AND NOT is_waiting AND executor = room.executor
           AND (deadline IS NULL OR deadline > task_now())
         ORDER BY rank, number
         LIMIT free
           FOR UPDATE SKIP LOCKED
     ) AS found
), lined_up AS (
    SELECT *, row_number() OVER (PARTITION BY executor ORDER BY rank, number) AS place
      FROM (SELECT number, executor, rank FROM ripe WHERE deadline IS NULL OR deadline > task_now()
            UNION ALL
            SELECT number, executor, rank FROM in_turn) AS candidate
), due AS (
    SELECT number FROM lined_up JOIN room USING (executor) WHERE place <= free
), brought_in AS (
    UPDATE task SET is_waiting = false
     WHERE number = ANY (ARRAY(SELECT number FROM ripe EXCEPT SELECT number FROM due))
), claimed AS (
    UPDATE task
       SET status = 'running', attempt = attempt + 1, started_at = task_now(), is_waiting = false,
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
