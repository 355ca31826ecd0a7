"""Routes whose functions give whole answers, which Litestar sends as they are."""

from functools import partial
from typing import Any, Final

from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, ExceptionHandlersMap


class Route(HTTPRouteHandler):
    """Does once what Litestar's own does anew for each request.

    That one asks what to make of an answer, and puts together who handles errors; for all routes of
    an application, the first is nothing, and the second does not change.
    """

    _exception_handlers: ExceptionHandlersMap

    def on_registration(self, app: Litestar) -> None:
        """See `HTTPRouteHandler.on_registration`."""
        super().on_registration(app)
        self._exception_handlers = super().resolve_exception_handlers()

    def resolve_exception_handlers(self) -> ExceptionHandlersMap:
        """See `HTTPRouteHandler.resolve_exception_handlers`."""
        return self._exception_handlers

    async def to_response(
        self,
        app: Litestar,  # noqa: ARG002 - Litestar's
        data: ASGIApp,
        request: Request[Any, Any, Any],  # noqa: ARG002 - Litestar's
    ) -> ASGIApp:
        """See `HTTPRouteHandler.to_response`."""
        return data


get: Final = partial(Route, http_method="GET")
post: Final = partial(Route, http_method="POST")
delete: Final = partial(Route, http_method="DELETE")
