"""Puts the HTTP API together."""

import asyncio
from functools import cache, partial
from typing import Final

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.types import ASGIApp

from domain.service import TaskService
from entrypoints.http.backlog import Backlog
from entrypoints.http.controllers import (
    DocumentController,
    HealthController,
    MetricsController,
    ProbeController,
)
from entrypoints.http.edge import Edge
from entrypoints.http.errors import EXCEPTION_HANDLERS
from entrypoints.http.lookout import Lookout
from entrypoints.http.openapi import openapi_document
from entrypoints.http.routes import Value
from entrypoints.http.streaming import Streams
from entrypoints.http.tasks import QueueController, TaskController
from entrypoints.http.waiting import Waiting
from entrypoints.metrics.page import Metrics
from entrypoints.readiness import Readiness
from settings.schema import Settings

__all__ = ["create_app", "openapi_document"]


ROUTES: Final = (
    TaskController,
    QueueController,
    HealthController,
    ProbeController,
    MetricsController,
    DocumentController,
)

_SENT: Final = [
    *["authorization", "content-type", "idempotency-key", "if-none-match", "last-event-id"],
    *["prefer", "x-api-key", "x-request-id"],
]
_ANSWERED: Final = [
    *["etag", "idempotency-replayed", "location", "preference-applied", "retry-after"],
    *["www-authenticate", "x-request-id"],
]


def create_app(
    settings: Settings,
    tasks: TaskService,
    lookout: Lookout,
    readiness: Readiness,
    metrics: Metrics,
) -> ASGIApp:
    """The ASGI application that serves these tasks."""
    dependencies = {
        "tasks": tasks,
        "waiting": Waiting(tasks, lookout),
        "streams": Streams(tasks, lookout),
        "backlog": Backlog(tasks),
        "storing": asyncio.Lock(),
        "readiness": readiness,
        "metrics": metrics,
        "settings": settings,
        "document": cache(partial(openapi_document, settings)),
    }
    app = Litestar(
        route_handlers=ROUTES,
        dependencies={name: Value(value) for name, value in dependencies.items()},
        exception_handlers=EXCEPTION_HANDLERS,
        request_max_body_size=settings.server.max_body_bytes,
        cors_config=_cors(settings.security.allowed_origins),
        openapi_config=None,
        logging_config=None,
    )
    return Edge(app, settings.security, metrics.requests)


def create_probes(settings: Settings, readiness: Readiness, metrics: Metrics) -> ASGIApp:
    """The ASGI application of a process that has no API: it only says how it is."""
    app = Litestar(
        route_handlers=[ProbeController, MetricsController],
        dependencies={"readiness": Value(readiness), "metrics": Value(metrics)},
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None,
        logging_config=None,
    )
    return Edge(app, settings.security, metrics.requests)


def _cors(origins: list[str]) -> CORSConfig | None:
    """What browsers must be told about the other sites that may call; nothing if there are none."""
    if not origins:
        return None
    return CORSConfig(
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=_SENT,
        expose_headers=_ANSWERED,
    )
