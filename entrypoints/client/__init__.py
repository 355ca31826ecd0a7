"""The commands for people. They know a service by its HTTP API only, wherever it runs.

    commands.py   what is asked for
      ├─ submission.py           what is sent
      ├─ following.py            the events of a task, across cut streams
      │    ├─ waiting.py         its output, as it comes, and its end
      │    └─ watching.py        the events themselves, one a line
      ├─ bulk.py, results.py     a file of tasks, and the file of what came of them
      ├─ showing.py              tasks and queues, as text and as tables
      └─ service.py              the HTTP client, and how long it is patient

Only `commands.py` is imported when another command runs; it imports the others when it needs them.
"""
