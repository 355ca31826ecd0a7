"""The routes of the service itself: how it is, and what there is to read about it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from litestar import Controller, Request
from litestar.di import NamedDependency
from litestar.params import SkipValidation
from litestar.status_codes import HTTP_200_OK

from domain.errors import StoreError
from domain.service import TaskService
from entrypoints.http.answers import Answer
from entrypoints.http.errors import NOT_HEALTHY_STATUS
from entrypoints.http.routes import get
from entrypoints.http.schemas import (
    VERSION,
    Health,
    Links,
    Liveness,
    ReadinessView,
    encode,
)
from entrypoints.metrics.page import Metrics
from entrypoints.readiness import Readiness
from settings.schema import Settings

COUNT_SECONDS: Final = 2.0
"""How long health waits for the store; beyond that it tells no number."""


class HealthController(Controller):
    """How the service is, and what it holds."""

    @get("/api/v1/health", operation_id="getHealth")
    async def health(
        self,
        tasks: NamedDependency[SkipValidation[TaskService]],
        readiness: NamedDependency[SkipValidation[Readiness]],
        settings: NamedDependency[SkipValidation[Settings]],
    ) -> Answer:
        """Whether the service can do its work, and how many tasks it holds."""
        count = await _count(tasks)
        healthy = count is not None and not readiness.faults()
        answer = Health(
            status="healthy" if healthy else "unhealthy",
            version=VERSION,
            tasks_count=count,
            app_name=settings.app_name,
        )
        return Answer(HTTP_200_OK if healthy else NOT_HEALTHY_STATUS, encode(answer))


async def _count(tasks: TaskService) -> int | None:
    try:
        async with asyncio.timeout(COUNT_SECONDS):
            return (await tasks.counts()).total
    except (StoreError, TimeoutError):
        return None


class ProbeController(Controller):
    """How this process is, for whoever restarts it and sends work to it."""

    @get("/livez", operation_id="getLiveness")
    async def liveness(self) -> Answer:
        """The process answers; restart it when it does not."""
        return Answer(HTTP_200_OK, encode(Liveness("alive")))

    @get("/readyz", operation_id="getReadiness")
    async def readiness(self, readiness: NamedDependency[SkipValidation[Readiness]]) -> Answer:
        """Whether to send work here, and what stands against it."""
        faults = readiness.faults()
        status = NOT_HEALTHY_STATUS if faults else HTTP_200_OK
        view = ReadinessView("not_ready" if faults else "ready", faults)
        return Answer(status, encode(view))


class MetricsController(Controller):
    """What this process did, in numbers."""

    @get("/metrics")
    async def metrics(
        self,
        request: Request[Any, Any, Any],
        metrics: NamedDependency[SkipValidation[Metrics]],
    ) -> Answer:
        """The numbers as Prometheus reads them."""
        accept = request.scope["state"]["headers"].get(b"accept", b"").decode("latin-1")
        page, media_type = await metrics.page(accept)
        return Answer(HTTP_200_OK, page, media_type=media_type.encode())


_PAGE: Final = (Path(__file__).parent / "page.html").read_bytes()
_PAGE_POLICY: Final = (
    b"content-security-policy",
    (
        b"default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; "
        b"style-src 'unsafe-inline'"
    ),
)


class DocumentController(Controller):
    """What there is to read about the API."""

    @get("/")
    async def links(self, settings: NamedDependency[SkipValidation[Settings]]) -> Answer:
        """Where to go from here."""
        return Answer(HTTP_200_OK, encode(Links(app_name=settings.app_name)))

    @get(["/schema/openapi.json", "/openapi.json"])
    async def document(
        self, document: NamedDependency[SkipValidation[Callable[[], bytes]]]
    ) -> Answer:
        """The OpenAPI document, made when it is first asked for."""
        return Answer(HTTP_200_OK, document())

    @get("/schema")
    async def page(self) -> Answer:
        """A page that shows the document, and loads nothing else."""
        return Answer(HTTP_200_OK, _PAGE, [_PAGE_POLICY], b"text/html; charset=utf-8")
