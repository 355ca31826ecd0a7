SELECT id, created_at, fingerprint
FROM task
WHERE owner = :owner AND idempotency_key = :key
