-- What attempts say on their way. `number` is the task's, `event` its place in the log of the task.

ALTER TABLE task ADD COLUMN recorded INTEGER NOT NULL DEFAULT 0;    -- how many events there are
ALTER TABLE task ADD COLUMN progress REAL;

CREATE TABLE task_event (
    number  INTEGER NOT NULL,
    event   INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    what    BLOB    NOT NULL,             -- JSON
    PRIMARY KEY (number, event)
) WITHOUT ROWID;

DROP TRIGGER task_removed;
CREATE TRIGGER task_removed AFTER DELETE ON task BEGIN
    DELETE FROM task_payload WHERE number = old.number;
    DELETE FROM task_result WHERE number = old.number;
    DELETE FROM task_event WHERE number = old.number AND old.recorded > 0;
END;
