INSERT INTO task (
    id, owner, status, executor, model, timeout_seconds, max_attempts, rank, created_at
)
VALUES (
    :id, :owner, 'pending', :executor, :model, :timeout_seconds, :max_attempts, :now, :now
)
