UPDATE task SET idempotency_key = NULL
  FROM unnest($1::text[], $2::text[]) AS stale (owner, key)
 WHERE task.owner = stale.owner AND task.idempotency_key = stale.key
   AND task.created_at < task_now() - $3::bigint
