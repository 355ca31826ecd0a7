SELECT min(completed_at) FROM task WHERE completed_at IS NOT NULL
