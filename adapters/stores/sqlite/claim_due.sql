SELECT
    t.id, t.owner, t.status, t.executor, t.model, t.timeout_seconds, t.max_attempts, t.rank,
    t.created_at, t.attempt, t.failures, t.crashes, t.started_at, t.completed_at, t.usage, t.error,
    t.due_at, t.priority, t.not_before, t.deadline, t.retry_of, t.cancel_requested_at,
    t.past_attempts, t.recorded, t.progress, p.metadata, NULL, p.input, p.options
FROM task AS t
JOIN task_payload AS p USING (number)
WHERE
    t.status = 'pending'
    AND t.executor = :executor
    AND t.is_waiting = 0
    AND (t.deadline IS NULL OR t.deadline > :now)
ORDER BY t.rank, t.number
LIMIT :room
