-- The task, and at most $4 of its events behind $3; and the last piece of output, if it has a result.
SELECT task.*, result,
       ARRAY(SELECT ROW (event, what) FROM task_event
              WHERE task_event.number = task.number AND event > $3::bigint
              ORDER BY event LIMIT $4) AS events,
       (SELECT what FROM task_event
         WHERE task_event.number = task.number AND kind = 'output' AND result IS NOT NULL
         ORDER BY event DESC LIMIT 1) AS last_output
  FROM task LEFT JOIN task_result USING (number)
 WHERE id = $1 AND ($2::text IS NULL OR owner = $2)
