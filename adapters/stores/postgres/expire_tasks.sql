-- Fails pending tasks whose deadline passed.
WITH overdue AS (
    SELECT number FROM task
     WHERE status = 'pending' AND deadline <= task_now()
     ORDER BY deadline
     LIMIT $1
       FOR UPDATE SKIP LOCKED
), expired AS (
    UPDATE task SET status = 'failed', completed_at = task_now(), error = $2
      FROM overdue
     WHERE task.number = overdue.number
    RETURNING task.id
), counted AS (
    UPDATE task_count
       SET pending = pending - (SELECT count(*) FROM expired),
           failed = failed + (SELECT count(*) FROM expired)
     WHERE slot = pg_backend_pid() % 64 AND EXISTS (SELECT FROM expired)
)
SELECT id FROM expired
