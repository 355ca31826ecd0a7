UPDATE task
SET executor = :chosen
WHERE status = 'pending' AND executor = :executor AND model IS :model
