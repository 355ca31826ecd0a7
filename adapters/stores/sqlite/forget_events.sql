DELETE FROM task_event
WHERE number = (SELECT number FROM task WHERE id = :id) AND event <= :until
