UPDATE task
   SET executor = coalesce((SELECT r.executor FROM unnest($2::text[], $3::text[]) AS r (model, executor)
                             WHERE r.model = task.model), $4)
 WHERE status = 'pending' AND executor <> ALL ($1::text[])
RETURNING number
