-- One page: looks at the tasks of one owner (null: of all of them, each found by leaping along the
-- index) from a position on, at most $8, and gives those that match, at most $9, with the position
-- of the last one looked at. {<}, {DESC} and {ASC} are turned round for the other order.
WITH RECURSIVE owners (owner) AS (
    SELECT coalesce($1::text, (SELECT min(owner) FROM task))
    UNION ALL
    SELECT next.owner FROM owners CROSS JOIN LATERAL (
        SELECT owner FROM task WHERE $1 IS NULL AND task.owner > owners.owner ORDER BY owner LIMIT 1
    ) AS next
), seen AS MATERIALIZED (
    SELECT found.* FROM owners CROSS JOIN LATERAL (
        SELECT number, created_at, status, executor, model FROM task
         WHERE task.owner = owners.owner
           AND (created_at, number) {<} ($2::bigint, $3::bigint)
           AND created_at > $4::bigint AND created_at < $5::bigint
         ORDER BY created_at {DESC}, number {DESC}
         LIMIT $8
    ) AS found
     ORDER BY created_at {DESC}, number {DESC}
     LIMIT $8
), matching AS (
    SELECT number FROM seen
     WHERE (cardinality($6::text[]) = 0 OR status = ANY ($6))
       AND ($7::text IS NULL OR executor = $7) AND ($10::text IS NULL OR model = $10)
     ORDER BY created_at {DESC}, number {DESC}
     LIMIT $9
), extent AS (
    SELECT (SELECT count(*) FROM seen) AS looked_at,
           (SELECT ROW (created_at, number)
              FROM seen ORDER BY created_at {ASC}, number {ASC} LIMIT 1) AS last
)
SELECT extent.*, found.*
  FROM extent LEFT JOIN (
    SELECT task.*, result, input
      FROM task
      LEFT JOIN task_result ON $11 AND task_result.number = task.number
      LEFT JOIN task_payload ON $12 AND task_payload.number = task.number
     WHERE task.number = ANY (ARRAY(SELECT number FROM matching))
  ) AS found ON true
 ORDER BY found.created_at {DESC}, found.number {DESC}
