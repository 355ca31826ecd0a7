"""Who is measured: floors, and the service on its stores; and how a sample of each is taken."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import postgres
import servers
from bench import Bench, Contestant, Sample
from servers import Server

Start = Callable[[Bench], AbstractContextManager[Server]]
Measurement = Callable[[Bench, Server, str], Mapping[str, float]]
"""Takes a sample from a running server; the label is that of its line."""

MEMORY: Final = {"STORE__BACKEND": "memory"}
SQLITE: Final = {"STORE__BACKEND": "sqlite", "STORE__PATH": "tasks.db"}
QUIET: Final = {"LOGGING__LEVEL": "error"}


def floor(app: str) -> Start:
    return lambda bench: servers.floor(app, bench.new_directory())


RAW, BARE = floor("raw:app"), floor("bare:app")
ORIGINAL, SCANNING = floor("original:app"), floor("original:scanning")


def service(*settings: Mapping[str, str], commit: str | None = None) -> Start:
    """The service with these settings, later ones winning; as it was at the commit, if given."""
    merged = _merged(*settings)
    return lambda bench: servers.service(
        bench.new_directory(), merged, code=None if commit is None else bench.checked_out(commit)
    )


def in_postgres(*settings: Mapping[str, str]) -> Start:
    """The service with these settings, on a database of its own; the server takes any core."""

    @contextmanager
    def start(bench: Bench) -> Iterator[Server]:
        with postgres.database() as dsn, service(on_postgres(dsn), *settings)(bench) as server:
            yield server

    return start


def in_two_processes(*settings: Mapping[str, str]) -> Start:
    """The same, with the tasks left to a worker; the API is the server."""

    @contextmanager
    def start(bench: Bench) -> Iterator[Server]:
        with postgres.database() as dsn:
            merged = _merged(on_postgres(dsn), *settings)
            with (
                servers.service(bench.new_directory(), merged, "--no-worker") as api,
                servers.worker(bench.new_directory(), merged),
            ):
                yield api

    return start


def on_postgres(dsn: str) -> Mapping[str, str]:
    """The settings that name this database."""
    return {"STORE__BACKEND": "postgres", "STORE__DSN": dsn}


def kept_in_memory(bench: Bench) -> AbstractContextManager[Server]:
    """A `Start`: the memory store with very many finished tasks in it."""
    kept = {"STORE__OPTIONS__FINISHED": str(bench.scale.kept)}
    return service({"STORE__BACKEND": "filling:PrefilledMemoryStore"}, kept, QUIET)(bench)


def kept_in_sqlite(bench: Bench) -> AbstractContextManager[Server]:
    """A `Start`: SQLite with as many."""
    return servers.service(bench.copy_of_kept(), SQLITE | QUIET)


def _merged(*settings: Mapping[str, str]) -> Mapping[str, str]:
    return {key: value for part in settings for key, value in part.items()}


def sampled(label: str, start: Start, measurement: Measurement) -> Contestant:
    """One server for all rounds."""

    @contextmanager
    def contestant(bench: Bench) -> Iterator[Sample]:
        with start(bench) as server:
            yield lambda: measurement(bench, server, label)

    return contestant


def fresh(label: str, start: Start, measurement: Measurement) -> Contestant:
    """A new server for each round."""

    @contextmanager
    def contestant(bench: Bench) -> Iterator[Sample]:
        def sample() -> Mapping[str, float]:
            with start(bench) as server:
                return measurement(bench, server, label)

        yield sample

    return contestant
