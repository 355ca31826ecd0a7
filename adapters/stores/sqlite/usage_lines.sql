SELECT executor, nullif(model, ''), input_tokens, output_tokens, total_tokens
FROM task_usage
WHERE owner = coalesce(:owner, owner)
