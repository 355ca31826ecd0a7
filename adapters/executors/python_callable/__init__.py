"""The executor for a Python function of yours.

A coroutine function runs in the service's process (`in_process.py`), and must not block it. Any
other one runs in child processes (`pool.py` keeps them, `process.py` is one of them as seen from
here, `child.py` is what runs there), which may hold the GIL, eat memory and die without harm to
anybody but their own attempt.

Nothing is imported here, so that a child starts with what it needs and no more.
"""
