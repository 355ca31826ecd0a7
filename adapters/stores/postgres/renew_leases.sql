UPDATE task SET lease_until = task_now() + $3::bigint
  FROM unnest($1::text[], $2::int[]) AS held (id, attempt)
 WHERE task.id = held.id AND task.status = 'running' AND task.attempt = held.attempt
RETURNING task.id, task.attempt
