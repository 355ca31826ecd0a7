INSERT INTO task_payload (number, metadata, options, input) VALUES (?, ?, ?, ?)
