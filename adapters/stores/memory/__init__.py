"""The store that forgets: for tests and throw-away runs, and the reference for the others.

`store` keeps each task in one row (`rows`), and its orders in structures that name the row: `turns`
for claims, `owners` for lists, a plain `queues.SortedQueue` each for deadlines and retention. A
task that is gone, or out of its turn, is not searched for there: whoever meets its row skips it.
"""

from adapters.stores.memory.store import MemoryOptions, MemoryTaskStore

__all__ = ["MemoryOptions", "MemoryTaskStore"]
