DELETE FROM task WHERE id = :id AND owner = coalesce(:owner, owner) RETURNING status
