UPDATE task
SET
    status = :status,
    rank = :rank,
    due_at = :due_at,
    is_waiting = :is_waiting,
    failures = :failures,
    crashes = :crashes,
    started_at = :started_at,
    cancel_requested_at = :cancel_requested_at,
    completed_at = :completed_at,
    error = :error,
    past_attempts = :past_attempts,
    progress = :progress,
    worker = iif(:status = 'running', worker, NULL),
    lease_until = iif(:status = 'running', lease_until, NULL)
WHERE id = :id
