-- Extends these leases, where they still hold. Locks and fences as `settle_attempts.sql` does.
WITH held AS (
    SELECT number
      FROM task JOIN unnest($1::text[], $2::int[]) AS fence (id, attempt)
        ON task.id = fence.id
       AND task.attempt = CASE task.status WHEN 'running' THEN fence.attempt END
     ORDER BY number
       FOR UPDATE OF task
)
UPDATE task SET lease_until = task_now() + $3::bigint
  FROM held
 WHERE task.number = held.number
RETURNING task.id, task.attempt
