-- Instants are microseconds since the epoch, by the clock of this server alone.
-- Tests put a function of the same name in front of this one to shift time.
CREATE FUNCTION task_now() RETURNS bigint LANGUAGE sql STABLE
    AS $$ SELECT (extract(epoch FROM now()) * 1000000)::bigint $$;

-- What claims, renewals and outcomes rewrite. Every index is partial and small, or never changes.
CREATE TABLE task (
    number          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              text NOT NULL UNIQUE,
    owner           text NOT NULL,
    status          text NOT NULL,
    executor        text NOT NULL,
    model           text,
    metadata        text NOT NULL,
    timeout_seconds double precision NOT NULL,
    max_attempts    integer NOT NULL,
    rank            bigint NOT NULL,
    created_at      bigint NOT NULL,
    attempt         integer NOT NULL DEFAULT 0,
    failures        integer NOT NULL DEFAULT 0,
    crashes         integer NOT NULL DEFAULT 0,
    started_at      bigint,
    completed_at    bigint,
    usage           text,
    error           text,
    worker          text,
    lease_until     bigint
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
-- Measured with 100,000 pending tasks, submitted, claimed, renewed and settled without a pause:
-- with 150,000 dead rows a claim reads 2.9 times the blocks and takes 1.4 times as long as at the
-- start; vacuumed so often, it stays as it was (0.95). The usual 0.2 would leave as many dead rows
-- to a million tasks. Only renewals can be HOT updates, as every change of status changes an index:
-- 0.29 of all updates with full pages, 0.30 at a fillfactor of 80, which makes the table 1.24 times
-- as large and claims no faster; so the pages are full.

CREATE INDEX task_due ON task (executor, rank, number) WHERE status = 'pending';
CREATE INDEX task_running ON task (number) WHERE status = 'running';
CREATE INDEX task_finished ON task (completed_at, number) WHERE completed_at IS NOT NULL;
CREATE INDEX task_finished_by_creation ON task (created_at, number) WHERE completed_at IS NOT NULL;

-- What never changes, and what is written once: JSON text, byte for byte as it came. Kept apart
-- from the row that claims rewrite, and removed with it by `purge_tasks.sql`.
CREATE TABLE task_payload (
    number  bigint PRIMARY KEY,
    input   bytea NOT NULL,
    options bytea NOT NULL
);
CREATE TABLE task_result (
    number bigint PRIMARY KEY,
    result bytea NOT NULL
);

-- How many tasks there are, by status: a row per slot, so that no two connections wait for one
-- another; the sum over all slots is the number. One slot alone may be negative.
CREATE TABLE task_count (
    slot      integer PRIMARY KEY,
    pending   bigint NOT NULL DEFAULT 0,
    running   bigint NOT NULL DEFAULT 0,
    completed bigint NOT NULL DEFAULT 0,
    failed    bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO task_count (slot) SELECT generate_series(0, 63);
