DELETE FROM task WHERE id = :id RETURNING status
