"""Every way to say no: the only place that knows status codes of errors and problem documents.

A problem document (RFC 9457) has a stable `code` for programs, and words for people. Nothing in it
repeats more than `SHOWN_CHARACTERS` of what was sent, and none of it comes from a stack trace.
"""

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from math import ceil
from typing import Any, Final

import msgspec
import structlog
from litestar import Request
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.types import Scope
from msgspec import Struct

from domain.errors import StorageFull, StoreUnavailable
from entrypoints.http.answers import Answer, Header
from entrypoints.http.schemas import (
    AFTER,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    LIST_CHOICES,
    LIST_PARAMETERS,
    Fault,
    Problem,
    TaskSubmission,
)

SHOWN_CHARACTERS: Final = 100


def retry_in(seconds: float) -> int:
    """A wait as `Retry-After` tells it: whole seconds, 1 … 60, for many clients ignore more."""
    return ceil(min(max(seconds, 1), 60))


class Refusal(Struct, frozen=True):
    """One row of the error table. `retry_after` is as `retry_in` gives it; None: it has no use."""

    status: int
    code: str
    detail: str
    retry_after: int | None = None
    headers: tuple[Header, ...] = ()


INVALID_JSON = Refusal(400, "invalid_json", "The body is not JSON.")
INVALID_ENCODING = Refusal(
    400, "invalid_encoding", "The body is not UTF-8, or has a lone surrogate in a string."
)
TOO_DEEP = Refusal(400, "too_deep", "The body is nested deeper than 64 levels.")
INVALID_REQUEST = Refusal(400, "invalid_request", "The request is not valid; see `errors`.")
NOT_HTTP = Refusal(400, "invalid_request", "What came is not a request of HTTP/1.1.")
HOST_NOT_ALLOWED = Refusal(
    400, "host_not_allowed", "The `Host` is none of this service's (`security.allowed_hosts`)."
)
UNAUTHORIZED = Refusal(
    401,
    "unauthorized",
    "Send a key: `Authorization: Bearer …` or `X-API-Key: …` (`security.api_keys`).",
    headers=((b"www-authenticate", b"Bearer"),),
)
ORIGIN_NOT_ALLOWED = Refusal(
    403, "origin_not_allowed", "Other sites may not call this (`security.allowed_origins`)."
)
TASK_NOT_FOUND = Refusal(404, "task_not_found", "There is no task with this id.")
NOT_FOUND = Refusal(404, "not_found", "There is nothing at this path.")
METHOD_NOT_ALLOWED = Refusal(
    405, "method_not_allowed", "This path does not know this method; see `Allow`."
)
NOT_RETRYABLE = Refusal(
    409, "not_retryable", "Only a task that failed or was cancelled is tried again."
)
EVENT_OFFSET_LOST = Refusal(
    410, "event_offset_lost", "So old events of this task are forgotten; its log begins later."
)
BODY_INCOMPLETE = Refusal(408, "body_incomplete", "The body did not arrive in time.")
BODY_TOO_LARGE = Refusal(
    413, "body_too_large", "The body is larger than this service takes (`server.max_body_bytes`)."
)
UNSUPPORTED_MEDIA_TYPE = Refusal(
    415,
    "unsupported_media_type",
    "Send `Content-Type: application/json`, in UTF-8, without `Content-Encoding`.",
)
IDEMPOTENCY_MISMATCH = Refusal(
    422, "idempotency_mismatch", "This `Idempotency-Key` was used with another body."
)
RATE_LIMITED = Refusal(
    429, "rate_limited", "This key asks more often than it may (`requests_per_second`).", 1
)
QUEUE_FULL = Refusal(429, "queue_full", "Too many tasks are pending; try again later.", 5)
INTERNAL_ERROR = Refusal(500, "internal_error", "Something failed that should not have.")
DRAINING = Refusal(503, "draining", "The service is stopping, and takes no new tasks.", 5)
STORE_UNAVAILABLE = Refusal(503, "store_unavailable", "The store does not answer.", 5)
STORAGE_FULL = Refusal(503, "storage_full", "There is too little room for another task.", 30)

FIRST_ERROR_STATUS: Final = 400
NOT_HEALTHY_STATUS: Final = 503

EVERYWHERE: Final = (HOST_NOT_ALLOWED, ORIGIN_NOT_ALLOWED, INTERNAL_ERROR)
BODY_REFUSALS: Final = (
    INVALID_JSON,
    INVALID_ENCODING,
    TOO_DEEP,
    INVALID_REQUEST,
    BODY_INCOMPLETE,
    BODY_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
)


class Refused(Exception):
    """A request that cannot be taken. `detail` replaces the row's own where it can say more."""

    def __init__(
        self, refusal: Refusal, detail: str | None = None, faults: Iterable[Fault] = ()
    ) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal
        self.detail = detail
        self.faults = faults


_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger()


def problem(
    refusal: Refusal,
    scope: Scope,
    *,
    detail: str | None = None,
    faults: Iterable[Fault] = (),
    headers: Sequence[Header] = (),
) -> Answer:
    """The answer that says no to the request of this scope."""
    document = Problem(
        type="about:blank",
        title=HTTPStatus(refusal.status).phrase,
        status=refusal.status,
        detail=detail or refusal.detail,
        instance=scope["path"][:SHOWN_CHARACTERS],
        code=refusal.code,
        request_id=scope["state"]["request_id"],
        errors=list(bounded(faults)),
    )
    headers = [*headers, *refusal.headers]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    return Answer(refusal.status, _encode(document), headers, b"application/problem+json")


def bounded(faults: Iterable[Fault]) -> Iterator[Fault]:
    """The first faults, with paths (which may hold names that the client chose) cut to fit."""
    room = SHOWN_CHARACTERS
    for fault in faults:
        if room <= 0:
            yield Fault(path="", message="there is more at fault than is shown here")
            return
        yield Fault(path=fault.path[:room], message=fault.message)
        room -= 0 if fault.path in OUR_PATHS else len(fault.path)


OUR_PATHS: Final = frozenset(
    {
        *["", "/options/model", IDEMPOTENCY_KEY, LAST_EVENT_ID, AFTER],
        *[*LIST_CHOICES, *LIST_PARAMETERS],
        *[f"/{name}" for name in TaskSubmission.__struct_fields__],
    }
)
"""Paths that repeat nothing of what the client made up."""


def _refused(request: Request[Any, Any, Any], error: Refused) -> Answer:
    return problem(error.refusal, request.scope, detail=error.detail, faults=error.faults)


def _not_found(request: Request[Any, Any, Any], _: NotFoundException) -> Answer:
    return problem(NOT_FOUND, request.scope)


def _method_not_allowed(
    request: Request[Any, Any, Any], error: MethodNotAllowedException
) -> Answer:
    methods = sorted((error.headers or {})["allow"].split(", "))
    allow = ", ".join(methods).encode()
    return problem(METHOD_NOT_ALLOWED, request.scope, headers=[(b"allow", allow)])


def _invalid(request: Request[Any, Any, Any], error: HTTPException) -> Answer:
    """What else Litestar itself finds wrong; its own words may quote too much."""
    refusal = INTERNAL_ERROR if error.status_code >= INTERNAL_ERROR.status else INVALID_REQUEST
    return problem(refusal, request.scope)


def _store_unavailable(request: Request[Any, Any, Any], error: StoreUnavailable) -> Answer:
    _log.warning("store_unavailable", reason=str(error), request_id=_id_of(request))
    return problem(STORE_UNAVAILABLE, request.scope)


def _storage_full(request: Request[Any, Any, Any], error: StorageFull) -> Answer:
    _log.warning(
        "storage_full", free=error.free_bytes, needed=error.needed_bytes, request_id=_id_of(request)
    )
    return problem(STORAGE_FULL, request.scope)


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Answer:
    _log.error("request_failed", exc_info=error, request_id=_id_of(request))
    return problem(INTERNAL_ERROR, request.scope)


def _id_of(request: Request[Any, Any, Any]) -> str:
    return str(request.scope["state"]["request_id"])


EXCEPTION_HANDLERS: Final[dict[int | type[Exception], Any]] = {
    Refused: _refused,
    NotFoundException: _not_found,
    MethodNotAllowedException: _method_not_allowed,
    HTTPException: _invalid,
    StoreUnavailable: _store_unavailable,
    StorageFull: _storage_full,
    Exception: _unexpected,
}
