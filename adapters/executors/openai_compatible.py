"""The executor for models behind the chat completions API of OpenAI, which most servers speak.

The way of an attempt: `_body` makes the request, `_send` sends it and waits for the head of the
answer, `_answers` reads it, and the result is what came before the end mark. Whatever happens on
the way, the connection is closed when the attempt is over: that is what stops the work of the
model. For the same reason the backend is asked to stream even when nobody reads the pieces. No
connection is used twice: an idle one that dies just then would cost a task its attempt.
"""

import asyncio
import io
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Meta, Struct

from adapters.upstream.body import BodyLimits, BoundedBody, error_body
from adapters.upstream.chat_completion import Answer, Completion, not_a_completion, parsed
from adapters.upstream.event_stream import EventStreamDecoder
from adapters.upstream.refusal import quoted, refusal, retry_after, said
from domain.errors import (
    ExecutorError,
    ExecutorFailed,
    ExecutorUnavailable,
    InvalidInput,
)
from domain.inference import Chunk, InferenceRequest, Piece

_END_MARK: Final = b"[DONE]"
_MIB: Final = 1024 * 1024
_STREAMED_BYTES_PER_RESULT_BYTE: Final = 128
_READ_BYTES: Final = 64 * 1024
_HTTP_ERRORS: Final = range(300, 600)

PositiveSeconds = Annotated[float, Meta(gt=0)]


class OpenAICompatibleOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of an `openai_compatible` executor.

    `base_url` is what stands before `/chat/completions`. `defaults` are fields of the request's
    body for tasks that do not set them. `stream: false` is for backends that cannot stream.
    `first_byte_timeout_seconds` counts from the start of an attempt to the head of the answer,
    `silence_timeout_seconds` between two pieces of it. `total_timeout_seconds` is there for
    whoever sets no timeout on tasks. `max_response_bytes` None: 128 bytes for each one that the
    result may have, and 1 MiB, for a streamed token of four letters easily takes 400.
    """

    base_url: str
    api_key: str | None = None
    endpoint: Literal["chat_completions"] = "chat_completions"
    stream: bool = True
    connect_timeout_seconds: PositiveSeconds = 10
    first_byte_timeout_seconds: PositiveSeconds = 120
    silence_timeout_seconds: PositiveSeconds = 120
    total_timeout_seconds: PositiveSeconds = 3600
    max_response_bytes: Annotated[int, Meta(ge=1)] | None = None
    headers: dict[str, str] = {}
    defaults: dict[str, Any] = {}

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in {"http", "https"} or not url.hostname or url.port == 0:
            raise ValueError("base_url must start with http:// or https:// and a host")
        if url.username is not None or url.query or url.fragment:
            raise ValueError("base_url must not have a user, a query or a fragment")
        for text in (self.api_key or "", *self.headers, *self.headers.values()):
            if not text.isprintable():
                raise ValueError("api_key and headers must not have control characters")

    def __repr__(self) -> str:
        """Without the secrets among the options."""
        return f"{type(self).__name__}(base_url={self.base_url!r})"

    def secrets(self) -> list[str]:
        """Texts that must never be shown to a client."""
        return [text for text in (self.api_key, *self.headers.values()) if text]


_encode = msgspec.json.Encoder().encode


class OpenAICompatibleExecutor:
    """Sends each attempt to a chat completions API as one request."""

    options_type = OpenAICompatibleOptions

    def __init__(self, options: OpenAICompatibleOptions) -> None:
        self._options = options
        self._url = options.base_url.rstrip("/") + "/chat/completions"
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        # Encoded answers are never asked for, nor decoded: a small one may unpack to anything.
        headers = {name.lower(): value for name, value in self._options.headers.items()}
        headers |= {"content-type": "application/json", "accept-encoding": "identity"}
        if self._options.api_key:
            headers["authorization"] = f"Bearer {self._options.api_key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._options.connect_timeout_seconds
            ),
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def room(self) -> None:
        """See `Executor.room`."""

    async def check(self) -> None:
        """See `Executor.check`."""

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        """Yield the text as the model writes it, then as the result with the usage reported."""
        response = await self._send(_encode(self._body(request)))
        try:
            await self._refuse_failure(response)
            completion = Completion(request.max_result_bytes)
            async with aclosing(self._answers(response, request.max_result_bytes)) as answers:
                async for answer in answers:
                    if answer.error is not None:
                        raise self._reported(answer.error)
                    if text := completion.take(answer):
                        yield Chunk(text)
            yield completion.result()
        finally:
            response.close()

    def _body(self, request: InferenceRequest) -> dict[str, Any]:
        """The defaults, under the task's options, under what its input sets."""
        options = {name: value for name, value in request.options.items() if name != "model"}
        body = {**self._options.defaults, **options, **_input_fields(request.input)}
        if request.model is not None:
            body["model"] = request.model
        body["stream"] = self._options.stream
        if self._options.stream:
            body["stream_options"] = {"include_usage": True}
        return body

    async def _send(self, body: bytes) -> aiohttp.ClientResponse:
        limit = self._options.first_byte_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                return await self._session.post(
                    self._url, data=io.BytesIO(body), allow_redirects=False
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise ExecutorUnavailable("no connection to the backend in time") from error
        except TimeoutError as error:
            raise ExecutorUnavailable(f"no answer within {limit:g} seconds") from error
        except aiohttp.ClientConnectorError as error:
            reason = type(error.__cause__ or error).__name__
            raise ExecutorUnavailable(f"no connection to the backend: {reason}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ExecutorUnavailable("the backend closed the connection unanswered") from error

    async def _refuse_failure(self, response: aiohttp.ClientResponse) -> None:
        encoding = response.headers.get("Content-Encoding", "identity")
        if response.status in _HTTP_ERRORS:
            wait = retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
            quote = await self._reason(response) if encoding == "identity" else ""
            raise refusal(response.status, quote, retry_after_seconds=wait)
        if encoding != "identity":
            raise not_a_completion(f"it is encoded as {self._quoted(encoding)}")

    async def _reason(self, response: aiohttp.ClientResponse) -> str:
        body = await error_body(response, self._options.silence_timeout_seconds)
        return self._quoted(said(body))

    async def _answers(
        self, response: aiohttp.ClientResponse, max_result_bytes: int
    ) -> AsyncGenerator[Answer, None]:
        """The parts of the answer; a backend that ignores `stream` gives one, the whole."""
        max_event_bytes = 2 * max_result_bytes + _MIB
        body = BoundedBody(response, self._limits(max_result_bytes))
        if response.content_type != "text/event-stream":
            yield parsed(await body.read_all(max_event_bytes))
            return
        decoder = EventStreamDecoder(max_event_bytes)
        while received := await body.read():
            for data in decoder.feed(received):
                if data == _END_MARK:
                    return
                yield parsed(data)
        if decoder.rest() != _END_MARK:
            raise ExecutorFailed("the backend's stream ended without its end mark")

    def _limits(self, max_result_bytes: int) -> BodyLimits:
        allowed = _STREAMED_BYTES_PER_RESULT_BYTE * max_result_bytes + _MIB
        return BodyLimits(
            silence_seconds=self._options.silence_timeout_seconds,
            total_seconds=self._options.total_timeout_seconds,
            max_bytes=self._options.max_response_bytes or allowed,
        )

    def _reported(self, error: Any) -> ExecutorError:
        """An error that came with a status of 200: its `code` counts as one, if it can be."""
        fields = error if isinstance(error, dict) else {"message": error}
        quote = self._quoted(str(fields.get("message")))
        code = fields.get("code")
        if isinstance(code, int) and code in _HTTP_ERRORS:
            return refusal(code, quote)
        return ExecutorFailed(f"the backend gave up: {quote}")

    def _quoted(self, text: str) -> str:
        return quoted(text, self._options.secrets())


def _input_fields(value: object) -> Mapping[str, Any]:
    match value:
        case str():
            return {"messages": [{"role": "user", "content": value}]}
        case list() if value and all(isinstance(message, dict) for message in value):
            return {"messages": value}
        case dict() if isinstance(value.get("messages"), list):
            return value
    raise InvalidInput(
        "the input must be a string, a list of chat messages, or an object with `messages`"
    )
