"""The service in one process: the port, the worker, and how both stop.

The port is taken before anything else, so that a second service on it ends without touching the
store. The first SIGTERM or SIGINT begins the drain: the port stays open and answers reads, while
running tasks get `server.drain_seconds` to end. Then connections that still wait for an answer get
a moment, and are cut. A second signal ends the process at once, with 128 + its number; what ran is
found by the next start, as after a crash.
"""

import asyncio
import gc
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import click
import structlog
import uvloop

from domain.errors import StoreUnavailable, StoreUnusable
from entrypoints.bootstrap import open_service
from entrypoints.http.app import create_app
from entrypoints.http.server import Server
from entrypoints.logging import flush_logs
from entrypoints.reload import code_changed
from settings.conversion import SettingsError, Sources, source_of
from settings.schema import ServerSettings, Settings

_FAILED: Final = 1
_UNUSABLE: Final = 3
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_BACKLOG: Final = 2048
_EXIT_ANYWAY_SECONDS: Final = 1.8  # of the two that are promised after `drain_seconds`

log = structlog.get_logger()


class PortUnavailable(Exception):
    """Nobody can listen there."""


def run(settings: Settings, sources: Sources, files: Sequence[Path] = ()) -> int:
    """Serve until told to stop. Returns only the exit code of a service that failed or never began.

    A clean stop ends the process here. `files` are those that the settings were read from: under
    `dev_mode` a change of one of them, or of the code, replaces the process.

    Raises `SettingsError` and `StoreUnusable`.
    """
    try:
        with listen(settings, sources) as listener:
            is_to_be_replaced = uvloop.run(_serve(settings, sources, files, listener))
    except (PortUnavailable, StoreUnavailable) as error:
        click.echo(f"Error: {error}", err=True)
        return _UNUSABLE
    except (SettingsError, StoreUnusable):
        raise
    except asyncio.CancelledError:  # a signal came before the service was ready
        return 0
    except Exception:
        log.exception("service_failed")
        return _FAILED
    return _replace_process() if is_to_be_replaced else _end_process()


# --- the port --------------------------------------------------------------------------------


def listen(settings: Settings, sources: Sources) -> socket.socket:
    """A socket that listens where the settings say.

    Raises `SettingsError` for an address that is not loopback, unless `security.allow_anonymous`,
    and `PortUnavailable`.
    """
    server = settings.server
    family, address = _resolve(server, sources)
    if not (ipaddress.ip_address(address[0]).is_loopback or settings.security.allow_anonymous):
        raise SettingsError(
            f"{_host(server, sources)}, which others can reach; allowed: a loopback address,"
            " or security.allow_anonymous: true"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = f"cannot listen on {server.host} port {server.port}: {error.strerror}"
        raise PortUnavailable(reason) from error
    return listener


def _resolve(server: ServerSettings, sources: Sources) -> tuple[int, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        message = (
            f"{_host(server, sources)}, which is not known; allowed: an address of this machine"
        )
        raise SettingsError(message) from error
    family, _, _, _, address = found[0]
    return family, (str(address[0]), server.port)


def _host(server: ServerSettings, sources: Sources) -> str:
    return f"server.host (from {source_of('server.host', sources)}) is {server.host!r}"


def _url(server: ServerSettings, listener: socket.socket) -> str:
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"http://{host}:{listener.getsockname()[1]}"


# --- from the start to the end ---------------------------------------------------------------


async def _serve(
    settings: Settings, sources: Sources, files: Sequence[Path], listener: socket.socket
) -> bool:
    """Serve until told to stop. True when this process is to be replaced by a new one."""
    stop = Stop()
    async with open_service(settings, sources) as service, asyncio.TaskGroup() as group:
        server = Server(create_app(settings, service.tasks, service.readiness))
        serving = group.create_task(server.serve(sockets=[listener]))
        await server.answers.wait()
        stop.is_starting = False
        gc.freeze()  # what is there now stays; `__main__` let the collector rest until here
        gc.enable()
        log.info("service_ready", url=_url(settings.server, listener))
        watching = group.create_task(_watch_code(settings, files, stop))
        await stop.asked.wait()
        watching.cancel()
        drain_seconds = 0.0 if stop.is_for_new_code else settings.server.drain_seconds
        log.info("stopping", drain_seconds=drain_seconds, for_new_code=stop.is_for_new_code)
        stop.at_the_latest_in(drain_seconds + _EXIT_ANYWAY_SECONDS)
        await service.drain(drain_seconds)
        await server.stop(serving)
    return stop.is_for_new_code


async def _watch_code(settings: Settings, files: Sequence[Path], stop: "Stop") -> None:
    if settings.dev_mode:
        await code_changed(files)
        stop.ask_for_new_code()


class Stop:
    """What ends the service: a signal, or new code. A second signal ends the process at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.is_for_new_code = False
        self.is_starting = True
        self._serving = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._on_signal)

    def ask_for_new_code(self) -> None:
        """Stop at once, for the process is replaced; a signal that came first wins."""
        self.is_for_new_code = not self.asked.is_set()
        self.asked.set()

    def at_the_latest_in(self, seconds: float) -> None:
        """End the process then, whatever executors, connections and the store still do."""
        end = _replace_process if self.is_for_new_code else partial(os._exit, 0)
        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()

    def _on_signal(self) -> None:
        for number in _SIGNALS:
            self._loop.remove_signal_handler(number)
            signal.signal(number, _end_at_once)
        self.is_for_new_code = False
        self.asked.set()
        if self.is_starting and self._serving is not None:
            self._serving.cancel()


def _end_at_once(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


def _end_process() -> NoReturn:
    """Exit with 0, without Python's own clean-up, which takes long on a busy machine."""
    flush_logs()
    os._exit(0)


def _replace_process() -> NoReturn:
    flush_logs()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - what ran before
