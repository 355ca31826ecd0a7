INSERT INTO task_result (number, result) SELECT number, :result FROM task WHERE id = :id
