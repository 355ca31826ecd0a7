SELECT status, attempt, recorded FROM task WHERE id = :id
