UPDATE task SET usage = :usage WHERE id = :id
