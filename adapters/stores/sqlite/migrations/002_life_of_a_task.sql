-- The whole life of a task: priority, delay, deadline, cancel, keys, lists, history. Nothing that
-- was there before changes its meaning; every column is NULL or 0 for a task of the usual kind.

ALTER TABLE task ADD COLUMN due_at INTEGER NOT NULL DEFAULT 0;      -- not claimed before
ALTER TABLE task ADD COLUMN is_waiting INTEGER NOT NULL DEFAULT 0;  -- until a claim finds it due
ALTER TABLE task ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN not_before INTEGER;                     -- as the client asked for
ALTER TABLE task ADD COLUMN deadline INTEGER;
ALTER TABLE task ADD COLUMN retry_of TEXT;
ALTER TABLE task ADD COLUMN idempotency_key TEXT;                   -- NULL again once it is free
ALTER TABLE task ADD COLUMN fingerprint BLOB;
ALTER TABLE task ADD COLUMN cancel_requested_at INTEGER;
ALTER TABLE task ADD COLUMN past_attempts TEXT;                     -- JSON; NULL: none

UPDATE task SET due_at = rank, is_waiting = (status = 'pending');

-- Pending tasks stand in turn by `rank`, or wait aside by `due_at`: a claim walks past none.
DROP INDEX task_due;
CREATE INDEX task_pending ON task (executor, is_waiting, status, rank) WHERE status = 'pending';
CREATE INDEX task_waiting ON task (due_at) WHERE status = 'pending' AND is_waiting = 1;
CREATE INDEX task_deadline ON task (deadline) WHERE status = 'pending' AND deadline IS NOT NULL;

CREATE INDEX task_of_owner ON task (owner, created_at);
CREATE UNIQUE INDEX task_key ON task (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
