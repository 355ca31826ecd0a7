SELECT pending, running, completed, failed, cancelled FROM task_count
