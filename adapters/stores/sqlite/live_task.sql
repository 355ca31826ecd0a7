SELECT 1 FROM task WHERE id = :id AND completed_at IS NULL
