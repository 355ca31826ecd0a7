"""The executor for any backend that takes JSON over HTTP and gives JSON.

The request's body is what the settings say, with the task's options and its input put in at their
places; the result is what stands at its place in the answer, or the texts of its lines or events
joined. Where the request goes is a matter of the settings alone.
"""

import io
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal, Self
from urllib.parse import urljoin

import msgspec
from msgspec import field

from adapters.upstream.answer import END_MARK, Allowance, Quote, decoded, not_an_answer
from adapters.upstream.backends import Target
from adapters.upstream.client import Reply, UpstreamClient
from adapters.upstream.options import UpstreamOptions, Urls, as_list, check_urls
from adapters.upstream.parts import events, lines, whole
from adapters.upstream.pointer import Pointer
from adapters.upstream.refusal import reported
from domain.errors import ExecutorFailed, InvalidInput
from domain.inference import Chunk, InferenceRequest, InferenceResult, Piece

_POINTERS: Final = (
    "input_pointer",
    "options_pointer",
    "output_pointer",
    "piece_pointer",
    "end_pointer",
    "error_pointer",
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class HttpJsonOptions(UpstreamOptions, frozen=True, kw_only=True):
    """The settings of an `http_json` executor, beside those of all backends.

    Pointers are JSON pointers (RFC 6901). In the request: `body` is what every request has; the
    task's options are put in at `options_pointer` (empty: among the fields of the body; null:
    nowhere), then its input at `input_pointer` (empty: it is the whole body).

    In the answer: the output stands at `output_pointer` (empty: all of it). With `stream`, each
    line or event has a piece of text at `piece_pointer`, or is none of the output's; the last one
    has something true at `end_pointer` (null: the end of the answer is the end). What stands at
    `error_pointer`, and is not null, is an error in spite of a status of success.

    `health_path` is a path where GET is answered while the backend is well; null: a connection
    must tell enough.
    """

    url: Urls
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    body: dict[str, Any] = field(default_factory=dict)
    input_pointer: str = "/input"
    options_pointer: str | None = "/options"
    output_pointer: str = ""
    stream: Literal["none", "json_lines", "sse"] = "none"
    piece_pointer: str = ""
    end_pointer: str | None = None
    error_pointer: str | None = None
    health_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_urls(as_list(self.url), "url", may_have_query=True)
        for name in _POINTERS:
            _check_pointer(name, getattr(self, name) or "")
        if self.health_path is not None and not self.health_path.startswith("/"):
            raise ValueError("health_path must begin with /")
        try:
            _body(self, {}, "")
        except LookupError as error:
            raise ValueError("body has no place for what the pointers put into it") from error

    def __repr__(self) -> str:
        """Without the secrets among the options."""
        return f"{type(self).__name__}(url={self.url!r})"


def _check_pointer(name: str, text: str) -> None:
    try:
        Pointer(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


class HttpJsonExecutor:
    """Sends each attempt to a backend as one request."""

    options_type = HttpJsonOptions

    def __init__(self, options: HttpJsonOptions) -> None:
        self._options = options
        targets = [
            Target(url, urljoin(url, options.health_path) if options.health_path else None)
            for url in as_list(options.url)
        ]
        self._client = UpstreamClient(targets, options)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._client.__aexit__(*details)

    def room(self) -> int | None:
        """See `Executor.room`."""
        return self._client.room()

    async def check(self) -> None:
        """See `Executor.check`."""
        await self._client.check()

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        """Yield the pieces as they come, then the result."""
        try:
            body = _body(self._options, request.options, request.input)
        except LookupError as error:
            raise InvalidInput("the options leave no place for the input") from error
        most = request.max_result_bytes
        kind = _Whole if self._options.stream == "none" else _Joined
        answer = kind(self._options, Allowance(most), self._client.quoted)
        async with (
            self._client.exchange(_encode(body), most, self._options.method) as reply,
            aclosing(answer.read(reply)) as texts,
        ):
            async for text in texts:
                yield Chunk(text)
        yield answer.result()


class _Whole:
    """An answer that is one JSON value."""

    def __init__(self, options: HttpJsonOptions, allowance: Allowance, quote: Quote) -> None:
        self._output_at = Pointer(options.output_pointer)
        self._error_at = _pointer(options.error_pointer)
        self._allowance = allowance
        self._quote = quote
        self._output: Any = None

    async def read(self, reply: Reply) -> AsyncGenerator[str, None]:
        """Yield the output if it is a text."""
        answer = _decoded(await whole(reply), self._error_at, self._quote)
        try:
            self._output = self._output_at.get(answer)
        except LookupError as error:
            raise not_an_answer(f"it has nothing at {self._output_at.text!r}") from error
        self._allowance.spend(len(_encode(self._output)))
        if isinstance(self._output, str) and self._output:
            yield self._output

    def result(self) -> InferenceResult:
        return InferenceResult(self._output)


class _Joined:
    """An answer whose lines or events have pieces of text."""

    def __init__(self, options: HttpJsonOptions, allowance: Allowance, quote: Quote) -> None:
        self._is_of_events = options.stream == "sse"
        self._piece_at = Pointer(options.piece_pointer)
        self._end_at = _pointer(options.end_pointer)
        self._error_at = _pointer(options.error_pointer)
        self._allowance = allowance
        self._quote = quote
        self._text = io.StringIO()
        self._has_pieces = False

    async def read(self, reply: Reply) -> AsyncGenerator[str, None]:
        """Yield the pieces, until the end mark or, if there is none, the end."""
        if self._is_of_events and reply.content_type != "text/event-stream":
            raise not_an_answer("it is no event stream")
        async with aclosing(events(reply) if self._is_of_events else lines(reply)) as parts:
            async for text in parts:
                if text == END_MARK:
                    return
                part = _decoded(text, self._error_at, self._quote)
                if piece := self._take(part):
                    yield piece
                if _found(self._end_at, part):
                    return
        if self._end_at is not None:
            raise ExecutorFailed("the backend's answer ended without its end mark")

    def result(self) -> InferenceResult:
        if not self._has_pieces:
            raise not_an_answer(f"it has nothing at {self._piece_at.text!r}")
        return InferenceResult(self._text.getvalue())

    def _take(self, part: Any) -> str:
        piece = _found(self._piece_at, part)
        if piece is None:
            return ""
        if not isinstance(piece, str):
            raise not_an_answer(f"it has no text at {self._piece_at.text!r}")
        self._has_pieces = True
        self._allowance.spend(len(piece.encode()))
        self._text.write(piece)
        return piece


def _body(options: HttpJsonOptions, task_options: Mapping[str, Any], value: Any) -> Any:
    """The request's body. Raises LookupError where there is no place for a part of it."""
    body: Any = options.body
    if options.options_pointer == "":
        body = {**body, **task_options}
    elif options.options_pointer is not None:
        body = Pointer(options.options_pointer).put(body, task_options)
    return Pointer(options.input_pointer).put(body, value)


def _decoded(text: bytes, error_at: Pointer | None, quote: Quote) -> Any:
    value = decoded(_decode, text)
    error = _found(error_at, value)
    if error is not None:
        raise reported(error, quote)
    return value


def _pointer(text: str | None) -> Pointer | None:
    return None if text is None else Pointer(text)


def _found(pointer: Pointer | None, value: Any) -> Any:
    """What stands there; None for no pointer, and for no such place."""
    if pointer is None:
        return None
    try:
        return pointer.get(value)
    except LookupError:
        return None
