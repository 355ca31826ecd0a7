SELECT p.input, p.options
FROM task AS t
JOIN task_payload AS p USING (number)
WHERE t.id = :id AND t.owner = coalesce(:owner, t.owner)
