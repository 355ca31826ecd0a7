"""The small values of a task that a database keeps as JSON text."""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from domain.events import Output, Recorded
from domain.inference import Usage
from domain.task import AttemptRecord, TaskError, TaskStatus

_encode: Final = msgspec.json.Encoder().encode
_decode_usage: Final = msgspec.json.Decoder(Usage).decode
_decode_error: Final = msgspec.json.Decoder(TaskError).decode
_decode_attempts: Final = msgspec.json.Decoder(tuple[AttemptRecord, ...]).decode

recorded_from: Final = msgspec.json.Decoder(Recorded).decode
"""What `recorded_json` was given."""
output_from: Final = msgspec.json.Decoder(Output).decode

metadata_from: Final = msgspec.json.Decoder(dict[str, str]).decode


Small = Usage | TaskError | Mapping[str, str] | Collection[AttemptRecord] | Collection[TaskStatus]


def json_text(value: Small | None) -> str | None:
    """The value as JSON; None stays None."""
    return None if value is None else _encode(value).decode()


def recorded_json(event: Recorded) -> bytes:
    """The event as JSON."""
    return _encode(event)


def kind_of(event: Recorded) -> str:
    """What kind of event it is, as its JSON says too."""
    return str(event.__struct_config__.tag)


def usage_from(text: str | None) -> Usage | None:
    """What `json_text` was given."""
    return None if text is None else _decode_usage(text)


def error_from(text: str | None) -> TaskError | None:
    """What `json_text` was given."""
    return None if text is None else _decode_error(text)


def attempts_from(text: str | None) -> tuple[AttemptRecord, ...]:
    """What `json_text` was given; None stands for no attempts."""
    return () if text is None else _decode_attempts(text)
