INSERT INTO task (
    number, id, owner, status, executor, model, timeout_seconds, max_attempts, rank, created_at,
    due_at, is_waiting, priority, not_before, deadline, retry_of, idempotency_key, fingerprint
)
VALUES (?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
