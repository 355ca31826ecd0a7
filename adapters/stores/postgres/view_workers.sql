SELECT executor, count(*) AS workers
  FROM worker CROSS JOIN unnest(executors) AS executor
 WHERE until > task_now()
 GROUP BY executor
