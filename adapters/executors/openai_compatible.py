"""The executor for models behind an API like OpenAI's, which most servers speak.

The way of an attempt: `_body` makes the request, the client sends it to one of the backends,
`_texts` reads what comes, and the result is what came before the end mark. The backend is asked
to stream even when nobody reads the pieces: letting go of the connection is then what stops the
work of the model.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, Literal, Self

import msgspec
from msgspec import field

from adapters.upstream.answer import Answer
from adapters.upstream.backends import Target
from adapters.upstream.client import Reply, UpstreamClient
from adapters.upstream.endpoints import ENDPOINTS
from adapters.upstream.options import UpstreamOptions, Urls, as_list, check_key, check_urls
from adapters.upstream.parts import events, whole
from domain.errors import ExecutorFailed
from domain.inference import Chunk, InferenceRequest, Piece


class OpenAICompatibleOptions(UpstreamOptions, frozen=True, kw_only=True):
    """The settings of an `openai_compatible` executor, beside those of all backends.

    `base_url` is what stands before `/chat/completions` and the like, of one backend or of several
    that serve the same. `defaults` are fields of the request's body for tasks that do not set them.
    `stream: false` is for backends that cannot stream.
    """

    base_url: Urls
    api_key: str | None = None
    endpoint: Literal["chat_completions", "responses", "completions", "embeddings"] = (
        "chat_completions"
    )
    stream: bool = True
    defaults: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_urls(as_list(self.base_url), "base_url")
        check_key(self.api_key)

    def __repr__(self) -> str:
        """Without the secrets among the options."""
        return f"{type(self).__name__}(base_url={self.base_url!r})"


_OURS: Final = frozenset({"model", "stream", "stream_options"})  # a task cannot change how we read
_encode = msgspec.json.Encoder().encode


class OpenAICompatibleExecutor:
    """Sends each attempt to an endpoint of such an API as one request."""

    options_type = OpenAICompatibleOptions

    def __init__(self, options: OpenAICompatibleOptions) -> None:
        self._options = options
        self._endpoint = ENDPOINTS[options.endpoint]
        bases = [base.rstrip("/") for base in as_list(options.base_url)]
        targets = [Target(base + self._endpoint.path, f"{base}/models") for base in bases]
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
        body = self._body(request)
        most = request.max_result_bytes
        answer = self._endpoint.answer(body, most, self._client.quoted)
        async with (
            self._client.exchange(_encode(body), most) as reply,
            aclosing(_texts(reply, answer)) as texts,
        ):
            async for text in texts:
                if text:
                    yield Chunk(text)
        yield answer.result()

    def _body(self, request: InferenceRequest) -> dict[str, Any]:
        """The defaults, under the task's options, under what its input sets."""
        options = {name: value for name, value in request.options.items() if name not in _OURS}
        fields = self._endpoint.fields_of(request.input)
        body = {**self._options.defaults, **options, **fields}
        if request.model is not None:
            body["model"] = request.model
        return {**body, **self._endpoint.streaming(self._options.stream)}


async def _texts(reply: Reply, answer: Answer) -> AsyncGenerator[str, None]:
    """The texts of the answer; a backend that ignores `stream` gives one, the whole."""
    if reply.content_type != "text/event-stream":
        yield answer.take_whole(await whole(reply))
        return
    async with aclosing(events(reply)) as parts:
        async for event in parts:
            yield answer.take(event)
            if answer.is_complete:
                return
    raise ExecutorFailed("the backend's stream ended without its end mark")
