SELECT event, what
FROM task_event
WHERE number = (SELECT number FROM task WHERE id = :id) AND event > :after
ORDER BY event
LIMIT :limit
