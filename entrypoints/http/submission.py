"""From the text of a body to a submission.

A good body is decoded once, by a decoder that knows the types. Only a bad or an odd one is looked
at again, value by value, in `faults`.
"""

import asyncio
import sys
from typing import Final

import msgspec
from msgspec import DecodeError, Raw, Struct

from domain.service import Submission
from domain.task import NO_METADATA, Idempotency
from entrypoints.http.errors import INVALID_REQUEST, Refused
from entrypoints.http.faults import examine, fault_of
from entrypoints.http.fingerprint import fingerprint
from entrypoints.http.schemas import RUN_AT_YEARS, Options, TaskSubmission
from entrypoints.http.timestamps import instant_of


class _Texts(Struct):
    """The two parts of a body that are kept as they were sent."""

    input: Raw
    options: Raw = Raw(b"{}")


_decode = msgspec.json.Decoder(TaskSubmission).decode
_decode_texts = msgspec.json.Decoder(_Texts).decode
_decode_anything = msgspec.json.Decoder().decode


async def read_submission(
    text: bytes, longest_timeout_seconds: float, idempotency_key: str | None = None
) -> Submission:
    """What a client asks for. `text` is UTF-8. Raises `Refused` with everything that is wrong."""
    odd = _is_odd(text)
    try:
        asked = _decode(text)
        if odd:
            _decode_anything(text)
    except DecodeError as error:
        await _examine(text, longest_timeout_seconds)
        # Only of two fields with one name is there a fault that `examine` does not see.
        raise Refused(INVALID_REQUEST, faults=[fault_of(error, "")]) from None
    if odd or not _is_within_bounds(asked, longest_timeout_seconds):
        await _examine(text, longest_timeout_seconds)
    idempotency = None
    if idempotency_key is not None:
        idempotency = Idempotency(idempotency_key, fingerprint(text))
    return _submission(asked, _decode_texts(text), idempotency)


async def _examine(text: bytes, longest_timeout_seconds: float) -> None:
    """`examine` in a thread: it may take a second, and leases are renewed on this loop."""
    await asyncio.to_thread(examine, text, longest_timeout_seconds)


def _is_within_bounds(asked: TaskSubmission, longest_timeout_seconds: float) -> bool:
    """What the types do not say."""
    if asked.run_at is not None and (
        asked.delay_seconds is not None or asked.run_at.year not in RUN_AT_YEARS
    ):
        return False
    return (asked.timeout_seconds or 0) <= longest_timeout_seconds


def _submission(
    asked: TaskSubmission, texts: _Texts, idempotency: Idempotency | None
) -> Submission:
    options = asked.options
    return Submission(
        input=bytes(texts.input),
        options=b"{}" if options is None else bytes(texts.options),
        model=_kept_once(options),
        metadata=asked.metadata or NO_METADATA,
        timeout_seconds=asked.timeout_seconds,
        max_attempts=None if asked.max_attempts is None else int(asked.max_attempts),
        priority=int(asked.priority or 0),
        delay_seconds=asked.delay_seconds,
        run_at=None if asked.run_at is None else instant_of(asked.run_at),
        deadline_seconds=asked.deadline_seconds,
        idempotency=idempotency,
    )


def _kept_once(options: Options | None) -> str | None:
    """The model; tasks that name the same one share the text, for as long as any is kept."""
    return None if options is None or options.model is None else sys.intern(options.model)


# The decoders take numbers of any size where they are not told a type, and skip what they need not
# keep. Only a text with 19 digits in a row, or three in an exponent, can hold one beyond 64 bits,
# and only one with such an escape U+0000. A regular expression takes as long for a prompt of a few
# thousand characters as half of all else.
_ALIKE: Final = bytes.maketrans(b"123456789E-", b"000000000e+")


def _is_odd(text: bytes) -> bool:
    alike = text.translate(_ALIKE)
    return (
        b"0000000000000000000" in alike
        or (b"0e" in alike and (b"0e000" in alike or b"0e+000" in alike))
        or b"\\u0000" in text
    )
