-- Takes expired leases away from their workers, judging each lease as it is when the row is locked.
WITH expired AS (
    SELECT number FROM task
     WHERE status = 'running' AND lease_until < task_now()
     ORDER BY number
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), reclaimed AS (
    UPDATE task
       SET crashes = crashes + 1, worker = NULL, lease_until = NULL,
           status = CASE WHEN crashes + 1 > $1 THEN 'failed' ELSE 'pending' END,
           started_at = CASE WHEN crashes + 1 > $1 THEN started_at END,
           completed_at = CASE WHEN crashes + 1 > $1 THEN task_now() END,
           error = CASE WHEN crashes + 1 > $1 THEN $3 END
      FROM expired
     WHERE task.number = expired.number
    RETURNING task.id, task.attempt, task.status
), counted AS (
    UPDATE task_count
       SET running = running - (SELECT count(*) FROM reclaimed),
           pending = pending + (SELECT count(*) FROM reclaimed WHERE status = 'pending'),
           failed = failed + (SELECT count(*) FROM reclaimed WHERE status = 'failed')
     WHERE slot = pg_backend_pid() % 64 AND EXISTS (SELECT FROM reclaimed)
)
SELECT id, attempt, status FROM reclaimed
