INSERT INTO task_result (number, result) VALUES (?, ?)
