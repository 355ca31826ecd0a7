-- Removes finished tasks, at most $3: first those that finished before $1 (microseconds ago; null:
-- none), then, while more than $2 (0: any number) would be there with $4 arriving, the oldest.
-- They are looked up by number: the planner cannot know how few they are, and joins would be scans.
WITH kept AS (
    SELECT sum(pending + running + completed + failed + cancelled) AS total FROM task_count
), expired AS (
    SELECT number FROM task
     WHERE completed_at < task_now() - $1::bigint
     ORDER BY completed_at, number
     LIMIT $3
       FOR UPDATE SKIP LOCKED
), surplus AS (
    SELECT number FROM task
     WHERE completed_at IS NOT NULL AND $2::bigint > 0
       AND number <> ALL (ARRAY(SELECT number FROM expired))
     ORDER BY created_at, number
     LIMIT greatest(0, least($3, (SELECT total FROM kept) + $4 - $2::bigint)
                       - (SELECT count(*) FROM expired))
       FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM task
     WHERE number = ANY (ARRAY(SELECT number FROM expired UNION ALL SELECT number FROM surplus))
    RETURNING number, status, recorded
), payload AS (
    DELETE FROM task_payload WHERE number = ANY (ARRAY(SELECT number FROM removed))
), result AS (
    DELETE FROM task_result WHERE number = ANY (ARRAY(SELECT number FROM removed))
), event AS (
    DELETE FROM task_event WHERE number = ANY (ARRAY(SELECT number FROM removed WHERE recorded > 0))
), counted AS (
    UPDATE task_count
       SET completed = completed - (SELECT count(*) FROM removed WHERE status = 'completed'),
           failed = failed - (SELECT count(*) FROM removed WHERE status = 'failed'),
           cancelled = cancelled - (SELECT count(*) FROM removed WHERE status = 'cancelled')
     WHERE slot = pg_backend_pid() % 64 AND EXISTS (SELECT FROM removed)
)
SELECT (SELECT count(*) FROM removed) AS removed,
       (SELECT total FROM kept) - (SELECT count(*) FROM removed) AS total,
       (SELECT task_now() - completed_at FROM task
         WHERE completed_at IS NOT NULL AND number <> ALL (ARRAY(SELECT number FROM removed))
         ORDER BY completed_at LIMIT 1) AS oldest
