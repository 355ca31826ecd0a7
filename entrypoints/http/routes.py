"""Routes whose functions give whole answers, which Litestar sends as they are."""

from functools import partial
from typing import Any, Final, cast

from litestar import Litestar, Request
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, ExceptionHandlersMap


class Value(Provide):
    """A dependency that is there before the first request, and the same for all of them."""

    def __init__(self, value: object) -> None:
        async def provided() -> object:
            return value

        super().__init__(provided)
        self.given = value


class Route(HTTPRouteHandler):
    """Does once what Litestar's own does anew for each request.

    That one resolves dependencies, puts together who handles errors, and asks what to make of an
    answer. Here the dependencies are values, the handlers stay the same, and answers are whole.
    """

    _exception_handlers: ExceptionHandlersMap

    def on_registration(self, app: Litestar) -> None:
        """See `HTTPRouteHandler.on_registration`."""
        super().on_registration(app)
        self._exception_handlers = super().resolve_exception_handlers()

    def resolve_exception_handlers(self) -> ExceptionHandlersMap:
        """See `HTTPRouteHandler.resolve_exception_handlers`."""
        return self._exception_handlers

    def create_kwargs_model(self, path_parameters: dict[str, Any]) -> Any:
        """See `HTTPRouteHandler.create_kwargs_model`. Every dependency must be a `Value`."""
        model = super().create_kwargs_model(path_parameters)
        batches, model.dependency_batches = model.dependency_batches, []
        values = {one.key: cast("Value", one.provide).given for batch in batches for one in batch}

        async def give(arguments: dict[str, Any], _: ASGIConnection[Any, Any, Any, Any]) -> None:
            arguments.update(values)

        model.extractors.append(give)
        return model

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
