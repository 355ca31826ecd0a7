-- What attempts say on their way. `number` is the task's, `event` its place in the log of the task.
ALTER TABLE task
    ADD COLUMN recorded integer NOT NULL DEFAULT 0, -- how many events there are
    ADD COLUMN progress double precision;

CREATE TABLE task_event (
    number bigint NOT NULL,
    event  bigint NOT NULL,
    kind   text   NOT NULL,
    what   bytea  NOT NULL, -- JSON
    PRIMARY KEY (number, event)
);

-- As the one of before, which the version of before goes on calling.
CREATE FUNCTION task_history(past jsonb, number integer, executor text, started_at bigint,
                             outcome text, error_code text, recorded integer)
    RETURNS jsonb LANGUAGE sql STABLE
    AS $$ SELECT CASE WHEN jsonb_array_length(past) < 50 THEN past ELSE coalesce(past - 0, '[]') END
              || jsonb_build_array(jsonb_build_object(
                     'number', number, 'executor', executor, 'started_at', started_at,
                     'ended_at', task_now(), 'outcome', outcome, 'error_code', error_code,
                     'recorded', recorded)) $$;

-- The last event of a task that is forgotten, with its oldest attempts; 0: none is.
CREATE FUNCTION task_lost_until(task task) RETURNS bigint LANGUAGE sql STABLE
    AS $$ SELECT CASE WHEN (task.past_attempts -> 0 ->> 'number')::bigint > 1
                      THEN 2 * (task.past_attempts -> 0 ->> 'number')::bigint
                           + coalesce((task.past_attempts -> 0 ->> 'recorded')::bigint, 0)
                      ELSE 0 END $$;
