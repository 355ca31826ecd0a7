-- The row of a task is what claims, renewals and settling rewrite; it stays small. What never
-- changes (metadata, options, input) and the result lie apart, under the same `number`.

CREATE TABLE task (
    number          INTEGER PRIMARY KEY,  -- the order of acceptance
    id              TEXT    NOT NULL UNIQUE,
    owner           TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    executor        TEXT    NOT NULL,
    model           TEXT,
    timeout_seconds REAL    NOT NULL,
    max_attempts    INTEGER NOT NULL,
    rank            INTEGER NOT NULL,     -- microseconds since the epoch, as all instants here
    created_at      INTEGER NOT NULL,
    attempt         INTEGER NOT NULL DEFAULT 0,
    failures        INTEGER NOT NULL DEFAULT 0,
    crashes         INTEGER NOT NULL DEFAULT 0,
    worker          TEXT,                 -- who holds the lease
    lease_until     REAL,                 -- monotonic seconds of the process that has it open
    started_at      INTEGER,
    completed_at    INTEGER,
    usage           TEXT,                 -- JSON
    error           TEXT                  -- JSON
);

CREATE INDEX task_due ON task (executor, rank) WHERE status = 'pending';
CREATE INDEX task_running ON task (lease_until) WHERE status = 'running';
CREATE INDEX task_finished ON task (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX task_finished_by_creation ON task (created_at) WHERE completed_at IS NOT NULL;

CREATE TABLE task_payload (
    number   INTEGER PRIMARY KEY,
    metadata TEXT NOT NULL,
    options  BLOB NOT NULL,
    input    BLOB NOT NULL
);

CREATE TABLE task_result (
    number INTEGER PRIMARY KEY,
    result BLOB NOT NULL
);

CREATE TRIGGER task_removed AFTER DELETE ON task BEGIN
    DELETE FROM task_payload WHERE number = old.number;
    DELETE FROM task_result WHERE number = old.number;
END;

-- One row, written by the transaction that changes it, so that nothing ever counts the tasks.
CREATE TABLE task_count (
    pending   INTEGER NOT NULL,
    running   INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    cancelled INTEGER NOT NULL
);
INSERT INTO task_count VALUES (0, 0, 0, 0, 0);
