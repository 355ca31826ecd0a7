SELECT 1 FROM task_count WHERE slot = pg_backend_pid() % 64 FOR NO KEY UPDATE
