-- The tasks that were submitted under these idempotency keys, where those are not free again.
SELECT task.*, result
  FROM unnest($1::text[], $2::text[]) AS asked (owner, key)
  JOIN task ON task.owner = asked.owner AND task.idempotency_key = asked.key
   AND created_at >= task_now() - $3::bigint
  LEFT JOIN task_result USING (number)
