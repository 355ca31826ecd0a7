"""Small values of a task that a database keeps as JSON text: metadata, usage, error, history."""

from collections.abc import Mapping
from typing import Final

import msgspec

from domain.inference import Usage
from domain.task import AttemptRecord, TaskError

_encode: Final = msgspec.json.Encoder().encode
_decode_usage: Final = msgspec.json.Decoder(Usage).decode
_decode_error: Final = msgspec.json.Decoder(TaskError).decode
_decode_attempts: Final = msgspec.json.Decoder(tuple[AttemptRecord, ...]).decode

metadata_from: Final = msgspec.json.Decoder(dict[str, str]).decode


def json_text(value: Usage | TaskError | Mapping[str, str] | None) -> str | None:
    """The value as JSON; None stays None."""
    return None if value is None else _encode(value).decode()


def usage_from(text: str | None) -> Usage | None:
    """What `json_text` was given."""
    return None if text is None else _decode_usage(text)


def error_from(text: str | None) -> TaskError | None:
    """What `json_text` was given."""
    return None if text is None else _decode_error(text)


def attempts_from(text: str) -> tuple[AttemptRecord, ...]:
    """The past attempts of a task; most have none."""
    return () if text == "[]" else _decode_attempts(text)
