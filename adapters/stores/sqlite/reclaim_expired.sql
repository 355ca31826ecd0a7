SELECT id
FROM task
WHERE status = 'running' AND lease_until < :monotonic
ORDER BY lease_until
LIMIT :limit
