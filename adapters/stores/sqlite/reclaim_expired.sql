SELECT
    t.id, t.owner, t.status, t.executor, t.model, t.timeout_seconds, t.max_attempts, t.rank,
    t.created_at, t.attempt, t.failures, t.crashes, t.started_at, t.completed_at, t.usage, t.error,
    p.metadata, NULL
FROM task AS t
JOIN task_payload AS p USING (number)
WHERE t.status = 'running' AND t.lease_until < :monotonic
ORDER BY t.lease_until
LIMIT :limit
