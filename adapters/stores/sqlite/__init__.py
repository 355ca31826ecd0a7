"""The default store: one SQLite file, owned by one process.

    event loop ──> writer thread ──> the file     whatever waits shares one transaction, one fsync
               ──> reader thread ──> the file     sees what is committed, waits for no writer

`store` carries the ports to the threads of `batches`; `transactions` makes one of all that waits.
`tables` is what the writer runs, with the `arrivals` that it has yet to store and the `numbers` it
keeps; `reads` is what the reader runs. Their `statements` are the `.sql` files, each named after
what it does; `rows` turns tasks into values, and back. `opening` judges the file before anything
touches it; `disk` watches the room that is left.
"""

from adapters.stores.sqlite.store import SqliteOptions, SqliteTaskStore

__all__ = ["SqliteOptions", "SqliteTaskStore"]
