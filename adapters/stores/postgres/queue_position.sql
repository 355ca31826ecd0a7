-- How many tasks come before this one; no row unless it is pending and due.
SELECT (SELECT count(*) FROM (
            (SELECT FROM task
              WHERE status = 'pending' AND NOT is_waiting AND executor = asked.executor
                AND (rank, number) < (asked.rank, asked.number)
              LIMIT $2)
            UNION ALL
            (SELECT FROM task
              WHERE status = 'pending' AND is_waiting AND executor = asked.executor
                AND due_at <= task_now() AND (rank, number) < (asked.rank, asked.number)
              LIMIT $2)) AS earlier) AS earlier
  FROM task AS asked
 WHERE id = $1 AND status = 'pending' AND (NOT is_waiting OR due_at <= task_now())
