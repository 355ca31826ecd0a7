UPDATE task_count
SET
    pending = :pending,
    running = :running,
    completed = :completed,
    failed = :failed,
    cancelled = :cancelled
