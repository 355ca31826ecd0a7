SELECT id, fingerprint FROM task WHERE owner = :owner AND idempotency_key = :key
