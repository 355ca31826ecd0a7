"""Many submissions in one body: each is read and answered by itself."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from itertools import count
from typing import Annotated, assert_never

import msgspec
from msgspec import DecodeError, Meta, Raw, Struct
from msgspec.structs import replace

from domain.ports import Accepted, Mismatch, QueueFull, Replayed, SubmitAnswer
from domain.service import Submission
from domain.task import Idempotency
from entrypoints.http.errors import (
    IDEMPOTENCY_MISMATCH,
    INVALID_REQUEST,
    QUEUE_FULL,
    Refused,
    bounded,
)
from entrypoints.http.faults import examine_batch, fault_of
from entrypoints.http.fingerprint import fingerprint
from entrypoints.http.schemas import (
    MOST_IN_A_BATCH,
    BatchCreated,
    Fault,
    ItemError,
    TaskCreated,
    TaskNotCreated,
)
from entrypoints.http.submission import read_submission


class _Batch(Struct, forbid_unknown_fields=True):
    """The submissions of a body, as they were sent."""

    tasks: Annotated[list[Raw], Meta(min_length=1, max_length=MOST_IN_A_BATCH)]


_decode = msgspec.json.Decoder(_Batch).decode


async def read_batch(
    text: bytes, longest_timeout_seconds: float, idempotency_key: str | None = None
) -> list[Submission | Refused]:
    """What a client asks for, in order, or why that cannot be taken. `text` is UTF-8.

    Raises `Refused` where the body holds no batch at all.
    """
    texts = await _texts(text)
    asked = [await _read(one, longest_timeout_seconds) for one in texts]
    return asked if idempotency_key is None else _keyed(asked, idempotency_key, texts)


async def _texts(text: bytes) -> list[bytes]:
    try:
        return [bytes(one) for one in _decode(text).tasks]
    except DecodeError as error:
        await asyncio.to_thread(examine_batch, text)
        raise Refused(INVALID_REQUEST, faults=[fault_of(error, "")]) from None


async def _read(text: bytes, longest_timeout_seconds: float) -> Submission | Refused:
    try:
        return await read_submission(text, longest_timeout_seconds)
    except Refused as refused:
        return refused


def _keyed(
    asked: Sequence[Submission | Refused], key: str, texts: Sequence[bytes]
) -> list[Submission | Refused]:
    """Each under a key of its own: no client can send one with a space in it.

    Only the good ones are numbered, so that any two batches under one key meet in the first. Which
    are good depends on the settings too, so the place of each is part of what stands for it.
    """
    whole = sha256(b"".join(map(_fingerprint, texts))).digest()
    numbers = count()
    return [
        one
        if isinstance(one, Refused)
        else replace(one, idempotency=_idempotency(key, next(numbers), whole + b"%d" % place))
        for place, one in enumerate(asked)
    ]


def _idempotency(key: str, number: int, asked: bytes) -> Idempotency:
    return Idempotency(f"{key} {number}", sha256(asked).digest())


def _fingerprint(text: bytes) -> bytes:
    """Stands for a submission; where it holds what we cannot read, for how it was written."""
    try:
        return fingerprint(text)
    except DecodeError:
        return sha256(text).digest()


def batch_view(
    asked: Sequence[Submission | Refused], answers: Sequence[SubmitAnswer]
) -> BatchCreated:
    """What became of each, in order. The answers are those to the submissions that were good."""
    left = iter(answers)
    return BatchCreated(
        [
            _refused(one, f"/tasks/{number}") if isinstance(one, Refused) else _answered(next(left))
            for number, one in enumerate(asked)
        ]
    )


def _answered(answer: SubmitAnswer) -> TaskCreated | TaskNotCreated:
    match answer:
        case Accepted(task) | Replayed(task):
            return TaskCreated(task.id, task.status)
        case QueueFull():
            return _refused(Refused(QUEUE_FULL))
        case Mismatch():
            return _refused(Refused(IDEMPOTENCY_MISMATCH))
        case other:
            assert_never(other)


def _refused(refused: Refused, path: str = "") -> TaskNotCreated:
    row = refused.refusal
    faults = [Fault(path + fault.path, fault.message) for fault in bounded(refused.faults)]
    return TaskNotCreated(ItemError(row.code, refused.detail or row.detail, faults))
