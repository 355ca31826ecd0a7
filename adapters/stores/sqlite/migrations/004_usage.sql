-- What completed tasks have cost, summed: a line for each model of an owner, but not for ever more of
-- them (`MOST_USAGE_LINES`). No model is an empty one here, for NULL is equal to nothing.

CREATE TABLE task_usage (
    owner         TEXT    NOT NULL,
    executor      TEXT    NOT NULL,
    model         TEXT    NOT NULL,
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    total_tokens  INTEGER NOT NULL,
    PRIMARY KEY (owner, executor, model)
) WITHOUT ROWID;

CREATE TRIGGER task_spent AFTER UPDATE OF usage ON task WHEN new.usage IS NOT NULL BEGIN
    INSERT INTO task_usage (owner, executor, model, input_tokens, output_tokens, total_tokens)
    SELECT
        new.owner,
        new.executor,
        iif(
            EXISTS (
                SELECT 1 FROM task_usage
                WHERE owner = new.owner AND executor = new.executor AND model = new.model
            ) OR (SELECT count(*) FROM task_usage WHERE owner = new.owner) < 1000,
            coalesce(new.model, ''),
            ''
        ),
        json_extract(new.usage, '$.input_tokens'),
        json_extract(new.usage, '$.output_tokens'),
        json_extract(new.usage, '$.total_tokens')
    WHERE true
    ON CONFLICT (owner, executor, model) DO UPDATE SET
        input_tokens = min(9223372036854775807, input_tokens + excluded.input_tokens),
        output_tokens = min(9223372036854775807, output_tokens + excluded.output_tokens),
        total_tokens = min(9223372036854775807, total_tokens + excluded.total_tokens);
END;
