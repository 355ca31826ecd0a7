SELECT id, status, attempt, recorded FROM task WHERE id = ANY ($1::text[])
