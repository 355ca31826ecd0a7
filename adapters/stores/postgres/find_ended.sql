-- Those of these ids under which no live task stands.
SELECT id FROM unnest($1::text[]) AS asked (id)
 WHERE NOT EXISTS (SELECT FROM task
                    WHERE task.id = asked.id AND completed_at IS NULL)
