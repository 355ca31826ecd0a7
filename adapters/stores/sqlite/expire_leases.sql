UPDATE task SET lease_until = -9e999 WHERE status = 'running'
