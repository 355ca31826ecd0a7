"""What `task-agent serve` and `task-agent worker` run: the service, in one process or in many.

The port stays open while a process drains: it answers reads, and says that it is not ready. Then
connections that still wait for an answer get a moment, and are cut.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import structlog
from litestar.types import ASGIApp

from entrypoints.bootstrap import Service, open_api, open_service, open_worker
from entrypoints.http.app import create_app, create_probes
from entrypoints.http.server import Server
from entrypoints.port import listen, listen_for_probes, url_of
from entrypoints.process import Stop, run_process
from settings.conversion import Sources
from settings.schema import Settings

OpenService = Callable[[Settings, Sources], AbstractAsyncContextManager[Service]]

log = structlog.get_logger()


def serve(settings: Settings, sources: Sources, files: Sequence[Path] = ()) -> int:
    """Answer the API and run tasks, until told to stop. See `run_process`."""
    return _serve(open_service, settings, sources, files)


def serve_api(settings: Settings, sources: Sources, files: Sequence[Path] = ()) -> int:
    """Answer the API, and leave the tasks to the workers of other processes."""
    return _serve(open_api, settings, sources, files)


def work(settings: Settings, sources: Sources, files: Sequence[Path] = ()) -> int:
    """Run tasks that other processes accept, and answer probes where `worker.port` is set."""

    async def working(stop: Stop) -> None:
        listener = listen_for_probes(settings, sources)
        async with (
            open_worker(settings, sources) as service,
            _answering(create_probes(settings, service.readiness, service.metrics), listener),
        ):
            stop.started()
            url = None if listener is None else url_of(settings.server, listener)
            log.info("worker_ready", url=url)
            await service.drain(await stop.asked())

    return run_process(working, settings, files)


def _serve(
    open_parts: OpenService, settings: Settings, sources: Sources, files: Sequence[Path]
) -> int:
    async def serving(stop: Stop) -> None:
        listener = listen(settings, sources)
        async with open_parts(settings, sources) as service:
            app = create_app(
                settings, service.tasks, service.lookout, service.readiness, service.metrics
            )
            async with _answering(app, listener):
                stop.started()
                log.info("service_ready", url=url_of(settings.server, listener))
                await service.drain(await stop.asked())

    return run_process(serving, settings, files)


@asynccontextmanager
async def _answering(app: ASGIApp, listener: socket.socket | None) -> AsyncIterator[None]:
    """Requests that come in there are answered by `app`; None: there is nothing to answer."""
    if listener is None:
        yield
        return
    async with asyncio.TaskGroup() as group:
        server = Server(app)
        serving = group.create_task(server.serve(sockets=[listener]))
        await server.answers.wait()
        yield
        await server.stop(serving)
