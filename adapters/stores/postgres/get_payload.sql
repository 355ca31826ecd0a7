SELECT input, options
  FROM task JOIN task_payload USING (number)
 WHERE id = $1 AND ($2::text IS NULL OR owner = $2)
