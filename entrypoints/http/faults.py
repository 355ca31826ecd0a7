"""Everything that is wrong with a submission: slow, thorough, and only for those that need it."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
from msgspec import DecodeError, Meta, ValidationError

from domain.inference import LARGEST_INTEGER, SMALLEST_INTEGER
from entrypoints.http.errors import (
    INVALID_ENCODING,
    INVALID_JSON,
    INVALID_REQUEST,
    SHOWN_CHARACTERS,
    Refused,
)
from entrypoints.http.schemas import (
    MOST_IN_A_BATCH,
    MOST_METADATA,
    RUN_AT_YEARS,
    ChatMessage,
    DeadlineSeconds,
    DelaySeconds,
    Fault,
    Input,
    MaxAttempts,
    Metadata,
    MetadataKey,
    MetadataValue,
    Options,
    Priority,
    RunAt,
    TimeoutSeconds,
)

_FIELDS: Final[Mapping[str, Any]] = {
    "input": Input,
    "options": Options,
    "timeout_seconds": TimeoutSeconds,
    "max_attempts": MaxAttempts,
    "metadata": Metadata,
    "priority": Priority,
    "delay_seconds": DelaySeconds,
    "run_at": RunAt,
    "deadline_seconds": DeadlineSeconds,
}


_ENOUGH: Final = 2 * SHOWN_CHARACTERS
"""More faults than an answer shows: each costs it at least a character, but for our own fields."""

_STEP: Final = re.compile(r"[^.\[\]`]+")


def examine(text: bytes, longest_timeout_seconds: float) -> None:
    """Raise `Refused` with all that is wrong with this body; return if nothing is."""
    body = _parse(text.decode())
    _refuse_if_any(_faults(body, longest_timeout_seconds))


def examine_batch(text: bytes) -> None:
    """The same for the body of a batch, without what is wrong with its single tasks."""
    _refuse_if_any(_faults_of_batch(_parse(text.decode())))


def _refuse_if_any(faults: Iterator[Fault]) -> None:
    shown = list(islice(faults, _ENOUGH))
    if shown:
        raise Refused(INVALID_REQUEST, faults=shown)


def fault_of(error: DecodeError, path: str) -> Fault:
    """What msgspec says, with its own path (`$.a[0]`) put behind ours as a JSON pointer."""
    message, _, where = str(error).partition(" - at `$")
    return Fault(path="/".join([path, *_STEP.findall(where)]), message=message)


def _parse(text: str) -> Any:
    try:
        body = json.loads(text, parse_int=_integer, parse_constant=_refuse_constant)
        json.dumps(body, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        detail = f"The body is not JSON: {error.msg}, at character {error.pos}."
        raise Refused(INVALID_JSON, detail) from None
    except UnicodeEncodeError:
        raise Refused(INVALID_ENCODING) from None
    return body


def _integer(digits: str) -> int | float:
    """Far beyond 64 bits an integer is told by its length: making it costs the square of that."""
    return int(digits) if len(digits) < 25 else math.inf


def _refuse_constant(name: str) -> None:
    raise json.JSONDecodeError(f"{name} is no JSON value", "", 0)


def _faults(body: Any, longest_timeout_seconds: float) -> Iterator[Fault]:
    if not isinstance(body, dict):
        yield Fault(path="", message="Expected `object`")
        return
    if "input" not in body:
        yield Fault(path="/input", message="Required: a string, a list of messages or an object")
    for name, value in body.items():
        path = _pointer("", name)
        if name in _FIELDS:
            yield from _faults_of_field(name, value, path, longest_timeout_seconds)
        else:
            yield Fault(path=path, message=f"Unknown field; known are {', '.join(_FIELDS)}")
    if body.get("delay_seconds") is not None and body.get("run_at") is not None:
        yield Fault(path="/run_at", message="Not beside `delay_seconds`: only one may be given")


def _faults_of_batch(body: Any) -> Iterator[Fault]:
    if not isinstance(body, dict):
        yield Fault(path="", message="Expected `object`")
        return
    for name in body.keys() - {"tasks"}:
        yield Fault(path=_pointer("", name), message="Unknown field; known is tasks")
    match body.get("tasks"):
        case [_, *others] if len(others) < MOST_IN_A_BATCH:
            return
        case _:
            message = f"Expected `array` of 1 … {MOST_IN_A_BATCH:,} submissions"
            yield Fault(path="/tasks", message=message)


def _faults_of_field(
    name: str, value: Any, path: str, longest_timeout_seconds: float
) -> Iterator[Fault]:
    unstorable = list(islice(_unstorable(value, path), _ENOUGH))
    yield from unstorable
    if unstorable or (value is None and name != "input"):
        return
    match name, value:
        case "input", [_, *_]:
            for number, message in enumerate(value):
                yield from mismatch(message, ChatMessage, f"{path}/{number}")
        case "metadata", dict():
            yield from _faults_of_metadata(value, path)
        case "timeout_seconds", _:
            bounded = Annotated[float, Meta(gt=0, le=float(longest_timeout_seconds))]
            yield from mismatch(value, bounded, path)
        case "run_at", _:
            yield from _faults_of_run_at(value, path)
        case _:
            yield from mismatch(value, _FIELDS[name], path)


def _faults_of_metadata(metadata: dict[str, Any], path: str) -> Iterator[Fault]:
    if len(metadata) > MOST_METADATA:
        yield Fault(path=path, message=f"Expected `object` of length <= {MOST_METADATA}")
        return
    for key, text in metadata.items():
        yield from mismatch(key, MetadataKey, _pointer(path, key))
        yield from mismatch(text, MetadataValue, _pointer(path, key))


def _faults_of_run_at(value: Any, path: str) -> Iterator[Fault]:
    faults = list(mismatch(value, RunAt, path))
    yield from faults
    if not faults and msgspec.convert(value, RunAt).year not in RUN_AT_YEARS:
        yield Fault(path=path, message="Expected a year of 1970 … 9998")


def mismatch(value: Any, expected: Any, path: str) -> Iterator[Fault]:
    """The fault, if there is one, of a value that is not of this type."""
    try:
        msgspec.convert(value, expected)
    except ValidationError as error:
        yield fault_of(error, path)


def _unstorable(value: Any, path: str) -> Iterator[Fault]:
    """What is JSON, but would not come back as it was: numbers beyond 64 bits, U+0000 in names."""
    match value:
        case float() if not math.isfinite(value):
            yield Fault(path=path, message="Expected a 64-bit integer or a finite double")
        case int() if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            yield Fault(path=path, message="Expected a 64-bit integer or a finite double")
        case dict():
            for name, item in value.items():
                if "\0" in name:
                    yield Fault(path=_pointer(path, name), message="A name may not hold U+0000")
                yield from _unstorable(item, _pointer(path, name))
        case list():
            for number, item in enumerate(value):
                yield from _unstorable(item, f"{path}/{number}")


def _pointer(path: str, name: str) -> str:
    """The JSON pointer (RFC 6901) to the member of that name."""
    return f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
