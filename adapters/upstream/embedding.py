"""What an embeddings API answers. It is never streamed."""

from typing import Any

import msgspec
from msgspec import Struct

from adapters.upstream.answer import Quote, decoded, not_an_answer, usage_of
from adapters.upstream.refusal import reported
from domain.errors import ResultTooLarge
from domain.inference import InferenceResult, Usage


class Embedded(Struct, frozen=True):
    """One embedding: numbers, or a text where the request asks for base64."""

    embedding: list[float] | str
    index: int = 0


class Embeddings(Struct, frozen=True):
    """A list of embeddings."""

    data: list[Embedded] | None = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(Embeddings).decode
_encode = msgspec.json.Encoder().encode


class Embedding:
    """One embedding for a text, a list of them for a list of texts. See `Answer`."""

    is_complete = False

    def __init__(self, max_bytes: int, quote: Quote, *, is_one: bool) -> None:
        self._is_one = is_one
        self._max_bytes = max_bytes
        self._quote = quote
        self._embeddings: list[list[float] | str] = []
        self._usage: Usage | None = None

    def take(self, event: bytes) -> str:  # noqa: ARG002 - whatever it may be
        """See `Answer.take`."""
        raise not_an_answer("it is a stream")

    def take_whole(self, text: bytes) -> str:
        """See `Answer.take_whole`: an embedding has no text."""
        answer = decoded(_decode, text)
        if answer.error is not None:
            raise reported(answer.error, self._quote)
        ordered = sorted(answer.data or (), key=lambda each: each.index)
        self._embeddings = [each.embedding for each in ordered]
        self._usage = usage_of(answer.usage, output_tokens=0)
        return ""

    def result(self) -> InferenceResult:
        """See `Answer.result`."""
        if not self._embeddings:
            raise not_an_answer("it has no embeddings")
        output = self._embeddings[0] if self._is_one else self._embeddings
        if len(_encode(output)) > self._max_bytes:
            raise ResultTooLarge(self._max_bytes)
        return InferenceResult(output, self._usage)
