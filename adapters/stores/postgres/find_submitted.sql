-- The tasks that were submitted under these idempotency keys. `is_stale`: the key is free again.
SELECT task.*, result, created_at < task_now() - $3::bigint AS is_stale
  FROM unnest($1::text[], $2::text[]) AS asked (owner, key)
  JOIN task ON task.owner = asked.owner AND task.idempotency_key = asked.key
  LEFT JOIN task_result USING (number)
