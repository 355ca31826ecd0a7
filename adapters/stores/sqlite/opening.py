"""Judges the file before anything is written: a file that is refused stays as it was.

A lock beside the file (`flock`) keeps every other process out for as long as the store is open. A
new database is made under another name and renamed, so an existing empty file is none of ours.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

from domain.errors import StoreUnusable

_MAGIC: Final = b"SQLite format 3\0"
_APPLICATION_ID: Final = 0x5441534B  # "TASK"
_BUSY_SECONDS: Final = 1.0
_CHECKED_WHOLE_BYTES: Final = 16 * 1024 * 1024

MIGRATIONS: Final = sorted(
    (int(file.name.partition("_")[0]), file.read_text(encoding="utf-8"))
    for file in files(__package__).joinpath("migrations").iterdir()
    if file.name.endswith(".sql")
)
"""Pairs of number and SQL, from 1 without a gap; `user_version` is the number of the last one."""

NEWEST: Final = MIGRATIONS[-1][0]


class _Refused(Exception):
    """Why the file cannot be used."""


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Make the directory, and hold the lock of this file. Raises `StoreUnusable`."""
    with refusing(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(path.with_name(path.name + ".lock"))
    try:
        yield
    finally:
        os.close(lock)


def make_ready(path: Path, *, migrate: bool) -> None:
    """See to it that the file has the newest schema, or raise `StoreUnusable`. Needs the lock."""
    with refusing(path):
        if not path.exists():
            _create(path, migrate)
            return
        version = _inspect(path)
        if version > NEWEST:
            raise _Refused(f"its schema is of version {version}, this program knows {NEWEST}")
        if version < NEWEST and not migrate:
            raise _Refused(
                f"its schema is of version {version}, this program needs {NEWEST}: "
                "run `task-agent migrate`, or set store.migrate_on_start"
            )
        path.chmod(0o600)
        if version < NEWEST:
            with closing(connect(path)) as connection:
                _migrate(connection, version)


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """A connection of the usual kind, to be used by one thread at a time."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=_BUSY_SECONDS,
        check_same_thread=False,
    )


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Whatever goes wrong here makes the store unusable."""
    try:
        yield
    except (_Refused, OSError, sqlite3.Error) as error:
        raise StoreUnusable(str(path), str(error)) from error


def _lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise _Refused("another process has it open") from None
    return lock


def _create(path: Path, migrate: bool) -> None:
    if not migrate:
        raise _Refused("it does not exist: run `task-agent migrate`, or set store.migrate_on_start")
    if _log_of(path).exists():
        raise _Refused(f"its log {_log_of(path).name} is there, but the file itself is gone")
    making = path.with_name(path.name + ".new")
    for left_behind in path.parent.glob(f"{making.name}*"):
        left_behind.unlink()
    making.touch(mode=0o600)
    with closing(connect(making)) as connection:
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        _migrate(connection, 0)
        connection.execute("PRAGMA journal_mode = WAL")
    making.rename(path)
    _sync_directory(path.parent)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for number, script in MIGRATIONS[version:]:
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
        )


def _inspect(path: Path) -> int:
    """The version of the schema; raises where the file is no sound database of ours."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise _Refused("it is not a database" if size else "it is empty")
    log = _log_of(path)
    recovering = log.exists() and log.stat().st_size > 0
    # Without a log nothing but the file counts, and `immutable` leaves no traces beside it.
    with closing(connect(path, "ro" if recovering else "ro&immutable=1")) as connection:
        if _pragma(connection, "application_id") != _APPLICATION_ID:
            raise _Refused("it is a database of another program")
        declared = _pragma(connection, "page_count") * _pragma(connection, "page_size")
        if size < declared and not recovering:
            raise _Refused(f"it is cut off: {size} bytes of {declared}")
        if size <= _CHECKED_WHOLE_BYTES:  # a larger one would hold up the start
            _check(connection)
        return _pragma(connection, "user_version")


def _check(connection: sqlite3.Connection) -> None:
    [finding] = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise _Refused(f"it is corrupt: {finding}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    [value] = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
