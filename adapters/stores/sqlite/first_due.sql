SELECT min(due_at) FROM task WHERE status = 'pending' AND is_waiting = 1
