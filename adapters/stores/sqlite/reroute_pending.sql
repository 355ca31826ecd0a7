SELECT DISTINCT executor, model FROM task WHERE status = 'pending'
