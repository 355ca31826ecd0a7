-- What completed tasks have cost, summed: a line for each model of an owner, but not for ever more of
-- them (`MOST_USAGE_LINES`). A row per slot, as in `task_count`. No model is an empty one here, for
-- NULL is equal to nothing.
CREATE TABLE task_usage (
    slot          integer NOT NULL,
    owner         text    NOT NULL,
    executor      text    NOT NULL,
    model         text    NOT NULL,
    input_tokens  numeric NOT NULL,
    output_tokens numeric NOT NULL,
    total_tokens  numeric NOT NULL,
    PRIMARY KEY (owner, executor, model, slot)
) WITH (fillfactor = 50);

-- The model under which the next usage is summed.
CREATE FUNCTION task_usage_model(for_owner text, for_executor text, for_model text)
    RETURNS text LANGUAGE sql STABLE
    AS $$ SELECT CASE
        WHEN for_model IS NULL THEN ''
        WHEN EXISTS (SELECT FROM task_usage
                      WHERE owner = for_owner AND executor = for_executor AND model = for_model)
        THEN for_model
        WHEN (SELECT count(DISTINCT (executor, model)) FROM task_usage WHERE owner = for_owner) < 1000
        THEN for_model
        ELSE '' END $$;
