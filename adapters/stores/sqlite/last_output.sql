SELECT what
FROM task_event
WHERE number = (SELECT number FROM task WHERE id = :id) AND kind = 'output'
ORDER BY event DESC
LIMIT 1
