-- Cancel, delay, priority, deadline, idempotency, history. Nothing is taken away, and what is new
-- has a default, but for one index: tasks that are not due yet wait in another one from here on.
ALTER TABLE task
    ADD COLUMN priority            integer NOT NULL DEFAULT 0,
    ADD COLUMN not_before          bigint,
    ADD COLUMN deadline            bigint,
    ADD COLUMN retry_of            text,
    ADD COLUMN due_at              bigint, -- null in a row of before: as `rank` says
    ADD COLUMN is_waiting          boolean NOT NULL DEFAULT false, -- until a claim finds it due
    ADD COLUMN cancel_requested_at bigint,
    ADD COLUMN past_attempts       jsonb,
    ADD COLUMN idempotency_key     text,
    ADD COLUMN fingerprint         bytea;
UPDATE task SET is_waiting = true, due_at = rank WHERE status = 'pending' AND rank > task_now();

DROP INDEX task_due;
CREATE INDEX task_in_turn ON task (executor, rank, number) WHERE status = 'pending' AND NOT is_waiting;
CREATE INDEX task_waiting ON task (executor, due_at) WHERE status = 'pending' AND is_waiting;
CREATE INDEX task_deadline ON task (deadline) WHERE status = 'pending' AND deadline IS NOT NULL;
CREATE INDEX task_by_owner ON task (owner, created_at, number);
CREATE UNIQUE INDEX task_idempotency ON task (owner, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- The attempts after which a task became pending again, with one that ends now. The oldest are
-- forgotten beyond `MOST_PAST_ATTEMPTS`.
CREATE FUNCTION task_history(past jsonb, number integer, executor text, started_at bigint,
                             outcome text, error_code text) RETURNS jsonb LANGUAGE sql STABLE
    AS $$ SELECT CASE WHEN jsonb_array_length(past) < 50 THEN past ELSE coalesce(past - 0, '[]') END
              || jsonb_build_array(jsonb_build_object(
                     'number', number, 'executor', executor, 'started_at', started_at,
                     'ended_at', task_now(), 'outcome', outcome, 'error_code', error_code)) $$;

-- Who said that it runs tasks of these executors, until when that holds.
CREATE TABLE worker (
    name      text PRIMARY KEY,
    executors text[] NOT NULL,
    until     bigint NOT NULL
);
