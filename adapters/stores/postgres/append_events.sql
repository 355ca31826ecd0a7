-- Records what attempts say, where they are still the running ones, and have not recorded it before.
WITH entry AS (
    SELECT * FROM unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::double precision[])
        AS entry (id, attempt, before, more, progress)
), held AS (
    SELECT number, entry.*
      FROM task JOIN entry
        ON task.id = entry.id
       AND task.attempt = CASE task.status WHEN 'running' THEN entry.attempt END
     ORDER BY number
       FOR UPDATE OF task
), appended AS (
    UPDATE task
       SET recorded = recorded + more, progress = coalesce(held.progress, task.progress)
      FROM held
     WHERE task.number = held.number AND recorded = before
    RETURNING task.number, task.id
), said AS (
    INSERT INTO task_event (number, event, kind, what)
    SELECT number, event, kind, what
      FROM unnest($6::text[], $7::bigint[], $8::text[], $9::bytea[]) AS said (id, event, kind, what)
      JOIN appended USING (id)
)
SELECT id, attempt FROM held
