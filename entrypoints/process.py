"""The life of a process: it starts, works until something ends it, and says how it went.

The first SIGTERM or SIGINT begins the drain, which gives running tasks `server.drain_seconds`. A
second one ends the process at once, with 128 + its number; what ran is found by another process, or
by the next start, as after a crash. Under `dev_mode`, new code or settings end it too: the process
then replaces itself.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import click
import structlog
import uvloop

from domain.errors import StoreUnavailable, StoreUnusable
from entrypoints.logging import flush_logs
from entrypoints.port import PortUnavailable
from entrypoints.reload import code_changed
from settings.conversion import SettingsError
from settings.schema import Settings

_FAILED: Final = 1
_UNUSABLE: Final = 3
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_EXIT_ANYWAY_SECONDS: Final = 1.8  # of the two that are promised after `drain_seconds`

log = structlog.get_logger()


def run_process(
    work: Callable[["Stop"], Coroutine[Any, Any, None]], settings: Settings, files: Sequence[Path]
) -> int:
    """Run `work` to its end. Returns only the exit code of one that failed or never began.

    A clean stop ends the process here. `files` are those that the settings were read from: under
    `dev_mode` a change of one of them, or of the code, replaces the process.

    Raises `SettingsError` and `StoreUnusable`.
    """
    try:
        is_to_be_replaced = uvloop.run(_until_stopped(work, settings, files))
    except (PortUnavailable, StoreUnavailable) as error:
        click.echo(f"Error: {error}", err=True)
        return _UNUSABLE
    except (SettingsError, StoreUnusable):
        raise
    except asyncio.CancelledError:  # a signal came before the process was ready
        return 0
    except Exception:
        log.exception("process_failed")
        return _FAILED
    return _replace_process() if is_to_be_replaced else _end_process()


async def _until_stopped(
    work: Callable[["Stop"], Coroutine[Any, Any, None]], settings: Settings, files: Sequence[Path]
) -> bool:
    stop = Stop(settings, files)
    await work(stop)
    return stop.is_for_new_code


class Stop:
    """What ends the process: a signal, or new code. A second signal ends it at once."""

    def __init__(self, settings: Settings, files: Sequence[Path]) -> None:
        self.is_for_new_code = False
        self._settings = settings
        self._files = files
        self._asked = asyncio.Event()
        self._is_starting = True
        self._working = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._on_signal)

    def started(self) -> None:
        """From now on a signal asks; until now it cancelled the start."""
        self._is_starting = False
        gc.freeze()  # what is there now stays; `__main__` let the collector rest until here
        gc.enable()

    async def asked(self) -> float:
        """Return when the process is to stop: the seconds that running tasks may take to end.

        A moment after these seconds the process ends, whatever it then still does.
        """
        watching = asyncio.create_task(self._watch_code())
        try:
            await self._asked.wait()
        finally:
            watching.cancel()
        drain_seconds = 0.0 if self.is_for_new_code else self._settings.server.drain_seconds
        log.info("stopping", drain_seconds=drain_seconds, for_new_code=self.is_for_new_code)
        self._end_at_the_latest_in(drain_seconds + _EXIT_ANYWAY_SECONDS)
        return drain_seconds

    async def _watch_code(self) -> None:
        if self._settings.dev_mode:
            await code_changed(self._files)
            self.is_for_new_code = not self._asked.is_set()  # a signal that came first wins
            self._asked.set()

    def _end_at_the_latest_in(self, seconds: float) -> None:
        end = _replace_process if self.is_for_new_code else partial(os._exit, 0)
        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()

    def _on_signal(self) -> None:
        for number in _SIGNALS:
            self._loop.remove_signal_handler(number)
            signal.signal(number, _end_at_once)
        self.is_for_new_code = False
        self._asked.set()
        if self._is_starting and self._working is not None:
            self._working.cancel()


def _end_at_once(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


def _end_process() -> NoReturn:
    """Exit with 0, without Python's own clean-up, which takes long on a busy machine."""
    flush_logs()
    os._exit(0)


def _replace_process() -> NoReturn:
    flush_logs()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - what ran before
