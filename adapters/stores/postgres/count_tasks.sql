SELECT sum(pending)::bigint AS pending, sum(running)::bigint AS running,
       sum(completed)::bigint AS completed, sum(failed)::bigint AS failed,
       sum(cancelled)::bigint AS cancelled
  FROM task_count
