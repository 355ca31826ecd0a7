"""The executor for models behind the chat completions API of OpenAI, which most servers speak.

The way of an attempt: `_body` makes the request, the client sends it to one of the backends,
`_answers` reads what comes, and the result is what came before the end mark. The backend is asked
to stream even when nobody reads the pieces: letting go of the connection is then what stops the
work of the model.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal, Self

import msgspec
from msgspec import field

from adapters.upstream.backends import Target
from adapters.upstream.chat_completion import Answer, Completion, parsed
from adapters.upstream.client import Reply, UpstreamClient
from adapters.upstream.event_stream import EventStreamDecoder
from adapters.upstream.options import UpstreamOptions, Urls, as_list, check_key, check_urls
from adapters.upstream.refusal import reported
from domain.errors import ExecutorFailed, InvalidInput
from domain.inference import Chunk, InferenceRequest, Piece

_END_MARK: Final = b"[DONE]"


class OpenAICompatibleOptions(UpstreamOptions, frozen=True, kw_only=True):
    """The settings of an `openai_compatible` executor, beside those of all backends.

    `base_url` is what stands before `/chat/completions`, of one backend or of several that serve
    the same. `defaults` are fields of the request's body for tasks that do not set them. `stream:
    false` is for backends that cannot stream.
    """

    base_url: Urls
    api_key: str | None = None
    endpoint: Literal["chat_completions"] = "chat_completions"
    stream: bool = True
    defaults: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_urls(as_list(self.base_url), "base_url")
        check_key(self.api_key)

    def __repr__(self) -> str:
        """Without the secrets among the options."""
        return f"{type(self).__name__}(base_url={self.base_url!r})"


_encode = msgspec.json.Encoder().encode


class OpenAICompatibleExecutor:
    """Sends each attempt to a chat completions API as one request."""

    options_type = OpenAICompatibleOptions

    def __init__(self, options: OpenAICompatibleOptions) -> None:
        self._options = options
        bases = [base.rstrip("/") for base in as_list(options.base_url)]
        targets = [Target(f"{base}/chat/completions", f"{base}/models") for base in bases]
        self._client = UpstreamClient(targets, options, options.api_key)

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
        """Yield the text as the model writes it, then as the result with the usage reported."""
        body = _encode(self._body(request))
        completion = Completion(request.max_result_bytes)
        async with (
            self._client.exchange(body, request.max_result_bytes) as reply,
            aclosing(_answers(reply)) as answers,
        ):
            async for answer in answers:
                if answer.error is not None:
                    raise reported(answer.error, self._client.quoted)
                if text := completion.take(answer):
                    yield Chunk(text)
        yield completion.result()

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


async def _answers(reply: Reply) -> AsyncGenerator[Answer, None]:
    """The parts of the answer; a backend that ignores `stream` gives one, the whole."""
    if reply.content_type != "text/event-stream":
        yield parsed(await reply.body.read_all(reply.max_part_bytes))
        return
    decoder = EventStreamDecoder(reply.max_part_bytes)
    while received := await reply.body.read():
        for data in decoder.feed(received):
            if data == _END_MARK:
                return
            yield parsed(data)
    if decoder.rest() != _END_MARK:
        raise ExecutorFailed("the backend's stream ended without its end mark")


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
