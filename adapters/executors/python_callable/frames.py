"""What the service and a child process tell each other: JSON behind its length, no pickle.

    service                      child
    Setup                   ->
                            <-   Imported, or Refused and the end
                            <-   Loaded, or Refused and the end
    Attempt                 ->
                            <-   Begun
                            <-   Text, Progressed, Logged …
                            <-   Returned or Joined; TooLarge, NotStorable or Raised
    Attempt                 ->   and so on, until the service closes the connection

Everything else is done by signals (see `child.py`).
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from domain.inference import Usage

HEADER_BYTES: Final = 8


class Setup(Struct, frozen=True):
    """What a child is to run. `import_path` is where its modules are looked for too."""

    target: str
    load: str | None
    max_memory_bytes: int | None
    import_path: list[str]
    service: int


class Attempt(Struct, frozen=True):
    """See `InferenceRequest`."""

    task_id: str
    attempt: int
    model: str | None
    input: Any
    options: dict[str, Any]
    max_result_bytes: int


class Imported(Struct, frozen=True, tag=True):
    """The target is there. One that `is_async` is not for a child, which ends with this."""

    is_async: bool


class Refused(Struct, frozen=True, tag=True):
    """The function that this option names cannot be used."""

    option: str
    reason: str


class Loaded(Struct, frozen=True, tag=True):
    """The child takes attempts."""


class Begun(Struct, frozen=True, tag=True):
    """The attempt has arrived; from here on, a death is its own."""


class Text(Struct, frozen=True, tag=True):
    """A piece of output."""

    delta: str


class Progressed(Struct, frozen=True, tag=True):
    """See `Progress`."""

    fraction: float


class Logged(Struct, frozen=True, tag=True):
    """See `LogLine`."""

    message: str


class Returned(Struct, frozen=True, tag=True):
    """The function returned. `result` is that of `encode_result`."""

    result: Raw
    usage: Usage | None


class Joined(Struct, frozen=True, tag=True):
    """A generator ended without a value: its pieces are the output."""


class TooLarge(Struct, frozen=True, tag=True):
    """See `ResultTooLarge`."""


class NotStorable(Struct, frozen=True, tag=True):
    """See `ResultNotStorable`."""

    reason: str


class Raised(Struct, frozen=True, tag=True):
    """The function failed in another way; see `ExecutorError`."""

    code: str
    message: str
    retryable: bool
    retry_after_seconds: float | None


Piece = Text | Progressed | Logged
End = Returned | Joined | TooLarge | NotStorable | Raised
FromChild = Imported | Refused | Loaded | Begun | Piece | End

_encode: Final = msgspec.json.Encoder().encode


def packed(message: Struct) -> bytes:
    """The message as it is sent."""
    body = _encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def length_of(header: bytes) -> int:
    """How many bytes follow this header."""
    return int.from_bytes(header, "big")
