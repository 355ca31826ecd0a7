UPDATE task
SET idempotency_key = NULL, fingerprint = NULL
WHERE owner = :owner AND idempotency_key = :key AND created_at <= :before
