SELECT
    t.id, t.owner, t.status, t.executor, t.model, t.timeout_seconds, t.max_attempts, t.rank,
    t.created_at, t.attempt, t.failures, t.crashes, t.started_at, t.completed_at, t.usage, t.error,
    t.due_at, t.priority, t.not_before, t.deadline, t.retry_of, t.cancel_requested_at,
    t.past_attempts, t.recorded, t.progress, p.metadata, iif(:with_result, r.result, NULL), iif(:with_input, p.input, NULL)
FROM task AS t
JOIN task_payload AS p USING (number)
LEFT JOIN task_result AS r ON :with_result AND r.number = t.number
WHERE t.number = :number
