-- Cancels a pending task, and marks a running one. Gives no row where there is nothing to do.
WITH live AS (
    SELECT number, status AS was FROM task
     WHERE id = $1 AND ($2::text IS NULL OR owner = $2)
       AND status IN ('pending', 'running') AND cancel_requested_at IS NULL
       FOR UPDATE
), asked AS (
    UPDATE task
       SET cancel_requested_at = task_now(),
           status = CASE was WHEN 'pending' THEN 'cancelled' ELSE status END,
           completed_at = CASE was WHEN 'pending' THEN task_now() END
      FROM live
     WHERE task.number = live.number
    RETURNING task.*
), counted AS (
    UPDATE task_count SET pending = pending - 1, cancelled = cancelled + 1
     WHERE slot = pg_backend_pid() % 64 AND EXISTS (SELECT FROM live WHERE was = 'pending')
)
SELECT asked.*, NULL::bytea AS result FROM asked
