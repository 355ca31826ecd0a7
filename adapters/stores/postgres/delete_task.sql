WITH removed AS (
    DELETE FROM task WHERE id = $1 AND ($2::text IS NULL OR owner = $2)
    RETURNING number, status
), payload AS (
    DELETE FROM task_payload WHERE number = (SELECT number FROM removed)
), result AS (
    DELETE FROM task_result WHERE number = (SELECT number FROM removed)
), event AS (
    DELETE FROM task_event WHERE number = (SELECT number FROM removed)
), counted AS (
    UPDATE task_count
       SET pending = pending - (SELECT count(*) FROM removed WHERE status = 'pending'),
           running = running - (SELECT count(*) FROM removed WHERE status = 'running'),
           completed = completed - (SELECT count(*) FROM removed WHERE status = 'completed'),
           failed = failed - (SELECT count(*) FROM removed WHERE status = 'failed'),
           cancelled = cancelled - (SELECT count(*) FROM removed WHERE status = 'cancelled')
     WHERE slot = pg_backend_pid() % 64 AND EXISTS (SELECT FROM removed)
)
SELECT status FROM removed
