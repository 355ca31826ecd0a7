"""From the query string to a question for the store: which tasks of a list, which events."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import replace

from domain.query import TaskQuery
from domain.task import TaskStatus
from entrypoints.http.cursors import position_of
from entrypoints.http.errors import INVALID_REQUEST, SHOWN_CHARACTERS, Refused
from entrypoints.http.faults import mismatch
from entrypoints.http.schemas import (
    AFTER,
    LAST_EVENT_ID,
    LIST_CHOICES,
    LIST_PARAMETERS,
    CreationBound,
    EventNumber,
    Fault,
)
from entrypoints.http.timestamps import instant_of

_DEFAULT_LIMIT: Final = "20"
_NOT_UTF_8: Final = "\ufffd"  # what is put in its place

_Given = Mapping[str, Sequence[str]]


def read_query(query_string: bytes, owner: str | None) -> TaskQuery:
    """The tasks of this owner that are asked for. Raises `Refused` with everything wrong in it."""
    given = _given(query_string)
    faults = list(islice(_faults(given), SHOWN_CHARACTERS))
    if faults:
        raise Refused(INVALID_REQUEST, faults=faults)
    query = _query(given, owner)
    cursor = _text(given, "cursor")
    return query if cursor is None else _continued(query, cursor)


def read_after(query_string: bytes, last_event_id: bytes | None) -> int:
    """The number of the event behind which to begin; 0: with the first. Raises `Refused`.

    `after` wins over the header, which must be a number all the same.
    """
    given = _given(query_string)
    faults = list(islice(_faults_of_numbers(given, last_event_id), SHOWN_CHARACTERS))
    if faults:
        raise Refused(INVALID_REQUEST, faults=faults)
    return int(_text(given, AFTER) or last_event_id or 0)


def _faults_of_numbers(given: _Given, last_event_id: bytes | None) -> Iterator[Fault]:
    if last_event_id is not None:
        yield from _faults_of_number(last_event_id.decode("latin-1"), LAST_EVENT_ID)
    for name, texts in given.items():
        if name != AFTER:
            yield Fault(name, f"Unknown parameter; known is {AFTER}")
        elif len(texts) > 1:
            yield Fault(name, "Given more than once")
        else:
            yield from _faults_of_number(texts[0], name)


def _faults_of_number(text: str, name: str) -> Iterator[Fault]:
    yield from mismatch(_integer_or_text(text), EventNumber, name)


def _given(query_string: bytes) -> _Given:
    given: dict[str, list[str]] = {}
    pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, errors="replace")
    for name, text in pairs:
        given.setdefault(name, []).append(text)
    return given


def _faults(given: _Given) -> Iterator[Fault]:
    known = [*LIST_CHOICES, *LIST_PARAMETERS]
    for name, texts in given.items():
        if name not in known:
            yield Fault(name, f"Unknown parameter; known are {', '.join(known)}")
        elif len(texts) > 1 and name != "status":
            yield Fault(name, "Given more than once")
        else:
            for text in texts:
                yield from _faults_of(name, text)


def _faults_of(name: str, text: str) -> Iterator[Fault]:
    if _NOT_UTF_8 in text:
        yield Fault(name, "Expected UTF-8")
    elif name not in LIST_CHOICES:
        value = _integer_or_text(text) if name == "limit" else text
        yield from mismatch(value, LIST_PARAMETERS[name], name)
    elif text not in LIST_CHOICES[name]:
        yield Fault(name, f"Expected one of: {' | '.join(LIST_CHOICES[name])}")


def _integer_or_text(text: str) -> int | str:
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 30 else text


def _query(given: _Given, owner: str | None) -> TaskQuery:
    include = _text(given, "include") or ""
    return TaskQuery(
        owner=owner,
        statuses=frozenset(map(TaskStatus, given.get("status", ()))),
        executor=_text(given, "executor"),
        model=_text(given, "model"),
        created_after=_instant(given, "created_after"),
        created_before=_instant(given, "created_before"),
        newest_first=_text(given, "order") != "asc",
        limit=int(_text(given, "limit") or _DEFAULT_LIMIT),
        with_result="result" in include,
        with_input="input" in include,
    )


def _continued(query: TaskQuery, cursor: str) -> TaskQuery:
    start = position_of(cursor, query)
    if start is None:
        message = "Not a cursor of this list: the filters and the order stay the same on the way"
        raise Refused(INVALID_REQUEST, faults=[Fault("cursor", message)])
    return replace(query, start=start)


def _text(given: _Given, name: str) -> str | None:
    return given[name][0] if name in given else None


def _instant(given: _Given, name: str) -> int | None:
    text = _text(given, name)
    return None if text is None else instant_of(msgspec.convert(text, CreationBound))
