SELECT task.*, result
  FROM task LEFT JOIN task_result USING (number)
 WHERE id = $1 AND ($2::text IS NULL OR owner = $2)
