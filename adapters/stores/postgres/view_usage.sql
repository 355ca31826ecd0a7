SELECT executor, nullif(model, '') AS model, sum(input_tokens)::text AS input_tokens,
       sum(output_tokens)::text AS output_tokens, sum(total_tokens)::text AS total_tokens
  FROM task_usage
 WHERE $1::text IS NULL OR owner = $1
 GROUP BY executor, model
