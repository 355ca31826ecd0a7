"""What an executor is given, and what it gives back."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct

from domain.errors import ResultNotStorable, ResultTooLarge

SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**63 - 1


class InferenceRequest(Struct, frozen=True, kw_only=True):
    """One attempt at one task, as its executor sees it.

    `input` is a string, a list of chat messages, or a JSON object. `options` is all that the client
    sent, `model` included. `attempt` counts from 1. An executor stops reading its backend once the
    output passed `max_result_bytes`, and raises `ResultTooLarge`.
    """

    task_id: str
    attempt: int
    model: str | None
    input: Any
    options: Mapping[str, Any]
    max_result_bytes: int


class Usage(Struct, frozen=True):
    """Tokens as the backend counted them. Never invented."""

    input_tokens: int
    output_tokens: int
    total_tokens: int

    def plus(self, other: "Usage") -> "Usage":
        """Both together, each number at most the largest that is stored."""
        return Usage(
            min(LARGEST_INTEGER, self.input_tokens + other.input_tokens),
            min(LARGEST_INTEGER, self.output_tokens + other.output_tokens),
            min(LARGEST_INTEGER, self.total_tokens + other.total_tokens),
        )


NO_USAGE: Final = Usage(0, 0, 0)


class Chunk(Struct, frozen=True):
    """A piece of output, in order. Where any came, and the output is a text, they joined are it."""

    delta: str


class Progress(Struct, frozen=True):
    """How far the attempt is: a fraction, 0 … 1."""

    fraction: float


class LogLine(Struct, frozen=True):
    """What the executor has to say to whoever watches the task."""

    message: str


class InferenceResult(Struct, frozen=True):
    """The last thing an executor yields. `output` is any JSON value; `usage` None if unknown.

    `details` are the JSON values that stand beside `output` in the result, by name.
    """

    output: Any
    usage: Usage | None = None
    details: Mapping[str, Any] = MappingProxyType({})


Piece = Chunk | Progress | LogLine | InferenceResult
"""What an executor yields."""


class Routes(Struct, frozen=True):
    """Which executor serves which model: those that list it, else the fallback."""

    by_model: Mapping[str, str]
    fallback: str

    def executor_for(self, model: str | None) -> str:
        """The name of the executor; also for a model that nobody knows, and for none at all."""
        return self.by_model.get(model, self.fallback) if model is not None else self.fallback


_encoder = msgspec.json.Encoder()


def encode_result(result: InferenceResult, max_bytes: int) -> bytes:
    """The JSON text of a task's `result`: `{"output": …}`, and the details.

    Raises `ResultNotStorable` for what has no exact JSON form, and `ResultTooLarge` beyond
    `max_bytes`.
    """
    try:
        if not isinstance(result.output, str):
            _refuse_inexact(result.output)
        if result.details:
            _refuse_inexact(dict(result.details))
        text = _encoder.encode({"output": result.output, **result.details})
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ResultNotStorable(str(error)[:100]) from error
    if len(text) > max_bytes:
        raise ResultTooLarge(max_bytes)
    return text


def _refuse_inexact(value: object) -> None:
    """Raise ValueError for what JSON, or the readers of ours, would refuse or change silently."""
    match value:
        case float() if not math.isfinite(value):
            raise ValueError(f"{value} is not a JSON number")
        case int() if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            raise ValueError("an integer needs more than 64 bits")
        case None | str() | int() | float():
            return
        case dict() if all(isinstance(key, str) for key in value):
            for item in value.values():
                _refuse_inexact(item)
        case list() | tuple():
            for item in value:
                _refuse_inexact(item)
        case _:
            raise ValueError(f"a {type(value).__name__} is not a JSON value")
