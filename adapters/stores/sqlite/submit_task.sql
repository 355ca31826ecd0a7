INSERT INTO task (
    number, id, owner, status, executor, model, timeout_seconds, max_attempts, rank, created_at
)
VALUES (?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?)
