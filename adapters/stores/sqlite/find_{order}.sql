SELECT
    created_at,
    number,
    (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)))
    AND executor = coalesce(:executor, executor)
    AND (:model IS NULL OR model = :model) AS matches
FROM task
WHERE
    owner = :owner
    AND (created_at, number) > (:after_created_at, :after_number)
    AND (created_at, number) < (:before_created_at, :before_number)
ORDER BY created_at {DESC}, number {DESC}
