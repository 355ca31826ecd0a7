-- Those of these attempts that are not the running ones (any more), or are to be cancelled.
SELECT held.id, held.attempt, task.id IS NOT NULL AS is_cancel
  FROM unnest($1::text[], $2::int[]) AS held (id, attempt)
  LEFT JOIN task ON task.id = held.id
   AND task.attempt = CASE task.status WHEN 'running' THEN held.attempt END
 WHERE task.id IS NULL OR task.cancel_requested_at IS NOT NULL
