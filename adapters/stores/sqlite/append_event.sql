INSERT INTO task_event (number, event, kind, what) VALUES (:number, :event, :kind, :what)
