"""Log lines: events with keys, to standard error, coloured on a terminal and JSON elsewhere.

    log call -> structlog's processors -> one line of bytes -> Lines -> a thread -> standard error

A line costs its caller an append. The thread writes what has gathered in one call, so a reader of
standard error that is slow, stopped or gone holds up no request: once too many lines wait, new
ones are dropped and counted. What waits is written at exit; before `exec` call `flush_logs`.
"""

import atexit
import contextlib
import functools
import logging
import os
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from settings.schema import LoggingSettings

_GATHER_SECONDS: Final = 0.02
_FLUSH_SECONDS: Final = 1.0
_MOST_WAITING: Final = 20_000


class Lines:
    """What structlog calls a logger: takes finished lines, and writes them from a thread."""

    def __init__(self, descriptor: int, most_waiting: int = _MOST_WAITING) -> None:
        self._descriptor = descriptor
        self._most_waiting = most_waiting
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._arrived = threading.Event()
        self._writing = threading.Lock()
        threading.Thread(target=self._write_for_ever, name="log", daemon=True).start()

    def msg(self, line: bytes) -> None:
        """Take a line. Never blocks, never raises."""
        if len(self._waiting) >= self._most_waiting:
            self._dropped += 1
            return
        self._waiting.append(line)
        if not self._arrived.is_set():
            self._arrived.set()

    log = debug = info = warning = warn = error = critical = fatal = exception = msg

    def flush(self) -> None:
        """Write what waits, now; give up after a second in which nobody reads."""
        if self._writing.acquire(timeout=_FLUSH_SECONDS):
            try:
                self._write_waiting()
            finally:
                self._writing.release()

    def _write_for_ever(self) -> None:
        while True:
            self._arrived.wait()
            time.sleep(_GATHER_SECONDS)
            self._arrived.clear()
            with self._writing:
                self._write_waiting()

    def _write_waiting(self) -> None:
        text = memoryview(b"".join(self._taken()))
        with contextlib.suppress(OSError):  # nobody reads any more, and there is nowhere to say so
            while text:
                text = text[os.write(self._descriptor, text) :]

    def _taken(self) -> list[bytes]:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(
                json_line(None, "warning", {"event": "log_lines_dropped", "count": dropped})
            )
        return lines


class _FromStandardLibrary(logging.Handler):
    """Sends what libraries log, and Python's warnings, down the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


_encode = msgspec.json.Encoder(enc_hook=repr).encode


def configure_logging(settings: LoggingSettings) -> None:
    """From now on everything that is logged anywhere in this process goes to standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            *_renderers(settings, on_terminal=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        logger_factory=lambda *_: _standard_error(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_FromStandardLibrary()], force=True)
    logging.captureWarnings(capture=True)


def flush_logs() -> None:
    """Write every line that still waits. Needed before this process is replaced or ends at once."""
    _standard_error().flush()


@functools.cache
def _standard_error() -> Lines:
    lines = Lines(sys.stderr.fileno())
    atexit.register(lines.flush)
    return lines


def _renderers(settings: LoggingSettings, *, on_terminal: bool) -> list[Processor]:
    if settings.format == "json" or (settings.format == "auto" and not on_terminal):
        return [json_line]
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.dev.ConsoleRenderer(colors=on_terminal),
        _console_line,
    ]


def json_line(_: object, level: str, event: EventDict) -> bytes:
    """One JSON object in one line: time (UTC), level, event, and its keys."""
    line = {"timestamp": datetime.now(UTC), "level": level, "event": event.pop("event"), **event}
    try:
        return _encode(line) + b"\n"
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _encode({key: _escaped(value) for key, value in line.items()}) + b"\n"


def _escaped(value: object) -> str:
    return str(value).encode("ascii", "backslashreplace").decode()


def _console_line(_: object, __: str, line: Any) -> bytes:
    return f"{line}\n".encode(errors="backslashreplace")
