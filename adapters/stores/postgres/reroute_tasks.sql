UPDATE task
   SET executor = coalesce((SELECT r.executor FROM unnest($2::text[], $3::text[]) AS r (model, executor)
                             WHERE r.model = task.model), $4)
 WHERE number = ANY (ARRAY(
        SELECT number FROM task
         WHERE status = 'pending' AND NOT is_waiting AND executor <> ALL ($1::text[])
        UNION ALL
        SELECT number FROM task
         WHERE status = 'pending' AND is_waiting AND executor <> ALL ($1::text[])))
   AND status = 'pending'
RETURNING number
