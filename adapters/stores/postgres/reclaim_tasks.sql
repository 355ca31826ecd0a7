-- Takes expired leases away from their workers, judging each lease as it is when the row is locked.
WITH expired AS (
    SELECT number,
           CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
                WHEN crashes + 1 > $1 THEN 'failed'
                ELSE 'pending' END AS becomes
      FROM task
     WHERE status = 'running' AND lease_until < task_now()
     ORDER BY number
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), reclaimed AS (
    UPDATE task
       SET crashes = crashes + 1, worker = NULL, lease_until = NULL, status = becomes,
           started_at = CASE WHEN becomes <> 'pending' THEN started_at END,
           completed_at = CASE WHEN becomes <> 'pending' THEN task_now() END,
           error = CASE becomes WHEN 'failed' THEN $3 END,
           progress = CASE WHEN becomes <> 'pending' THEN progress END,
           past_attempts = CASE WHEN becomes <> 'pending' THEN past_attempts
               ELSE task_history(past_attempts, attempt, executor, started_at, 'worker_lost', $4,
                                 recorded)
               END
      FROM expired
     WHERE task.number = expired.number
    RETURNING task.number, task.id, task.attempt, task.status,
              CASE becomes WHEN 'pending' THEN task_lost_until(task) END AS lost_until
), forgotten AS (
    DELETE FROM task_event
     WHERE number = ANY (ARRAY(SELECT number FROM reclaimed WHERE lost_until > 0))
       AND event <= (SELECT lost_until FROM reclaimed WHERE reclaimed.number = task_event.number)
), counted AS (
    UPDATE task_count
       SET running = running - (SELECT count(*) FROM reclaimed),
           pending = pending + (SELECT count(*) FROM reclaimed WHERE status = 'pending'),
           failed = failed + (SELECT count(*) FROM reclaimed WHERE status = 'failed'),
           cancelled = cancelled + (SELECT count(*) FROM reclaimed WHERE status = 'cancelled')
     WHERE slot = pg_backend_pid() % 64 AND EXISTS (SELECT FROM reclaimed)
)
SELECT id, attempt, status FROM reclaimed
