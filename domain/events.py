"""The log of a task: all that happened to it, numbered from 1 without gaps.

Most of it is written down nowhere, for it follows from the task itself. Only what an attempt says
on its way (output, progress, log lines) is recorded, in the order in which it came; the task counts
it. With r(k) for what was recorded by the end of attempt k, the numbers are

    1                    it was accepted
    2k + r(k - 1)        attempt k began
    2k + r(k - 1) + i    the i-th event that attempt k recorded
    2k + r(k) + 1        attempt k ended, and the task is pending again

and at the end, after whatever came last: what of the output was not recorded, the last status, the
usage, and that it is done. So an event of an attempt never follows one of a later attempt, and
submits, claims and outcomes write nothing for the log.
"""

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

import msgspec
from msgspec import Struct

from domain.inference import Usage
from domain.task import AttemptOutcome, AttemptRecord, Task, TaskStatus


class Output(Struct, frozen=True, tag="output"):
    """A piece of the output of an attempt; `index` counts them from 0.

    `end` is how many characters of the output there are up to the end of this piece.
    """

    delta: str
    index: int
    attempt: int
    end: int


class ProgressMade(Struct, frozen=True, tag="progress"):
    """How far the attempt is: 0 … 1."""

    fraction: float
    attempt: int


class Logged(Struct, frozen=True, tag="log"):
    """What the executor had to say."""

    message: str
    attempt: int


Recorded = Output | ProgressMade | Logged
"""What a store keeps of an attempt on its way."""


class StatusChanged(Struct, frozen=True):
    """The task is in this status from `at` on.

    `attempt` is the one that began or ended with it, 0 where there was none; `outcome` and
    `error_code` say how it ended.
    """

    status: TaskStatus
    attempt: int
    at: int
    outcome: AttemptOutcome | None = None
    error_code: str | None = None


class UsageReported(Struct, frozen=True):
    """What the result cost."""

    usage: Usage


class Done(Struct, frozen=True):
    """Nothing more will happen to the task."""

    task: Task


class Event(Struct, frozen=True):
    """Something that happened, with its number."""

    number: int
    what: Recorded | StatusChanged | UsageReported | Done


class LogPage(Struct, frozen=True):
    """What a store knows of a part of a task's log, all of it as of one moment.

    `recorded` are the recorded events that follow the number asked for, in their order; those that
    are missing because there are too many stand behind the last of these, and `is_whole` is False.
    `last_output` is the last piece of output that was recorded, where there is a result.
    """

    task: Task
    recorded: Sequence[Event]
    is_whole: bool
    last_output: Output | None


def events_of(page: LogPage, after: int) -> list[Event]:
    """The events of this page behind this number, in their order."""
    known = [*_statuses(page.task), *page.recorded]
    until = inf if page.is_whole else page.recorded[-1].number
    if page.is_whole:
        known += _ending(page.task, page.last_output)
    asked = [event for event in known if after < event.number <= until]
    return sorted(asked, key=lambda event: event.number)


def lost_until(task: Task) -> int:
    """The number of the last event that is forgotten, with the oldest attempts; 0: none is."""
    first = next(iter(task.past_attempts), None)
    if first is None or first.number == 1:
        return 0
    return 2 * first.number + first.recorded


def number_of_start(task: Task) -> int:
    """The number of the event with which the latest attempt began."""
    return 2 * task.attempt + task.recorded_before


def number_of_recorded(attempt: int, recorded: int) -> int:
    """The number of what this attempt records when this many events were recorded before it."""
    return 2 * attempt + recorded + 1


def progress_in(events: Sequence[Recorded]) -> float | None:
    """How far the attempt is by the last of these that says so."""
    told = [event.fraction for event in events if isinstance(event, ProgressMade)]
    return told[-1] if told else None


def _statuses(task: Task) -> Iterator[Event]:
    """The changes of status that are remembered, but for the last one of a finished task."""
    if not lost_until(task):
        yield Event(1, StatusChanged(TaskStatus.PENDING, 0, task.created_at))
    recorded = 0
    for past in task.past_attempts:
        if past.number == 1 or past is not task.past_attempts[0]:
            yield _began(past.number, past.started_at, recorded)
        recorded = past.recorded
        yield _ended(past)
    if task.started_at is not None:
        yield _began(task.attempt, task.started_at, recorded)


def _began(attempt: int, at: int, recorded: int) -> Event:
    return Event(2 * attempt + recorded, StatusChanged(TaskStatus.RUNNING, attempt, at))


def _ended(past: AttemptRecord) -> Event:
    at = past.started_at if past.ended_at is None else past.ended_at
    change = StatusChanged(TaskStatus.PENDING, past.number, at, past.outcome, past.error_code)
    return Event(2 * past.number + past.recorded + 1, change)


def _ending(task: Task, last_output: Output | None) -> Iterator[Event]:
    """What follows all that was recorded, of a finished task."""
    if task.completed_at is None:
        return
    number = 2 * task.attempt + task.recorded + (task.started_at is None)
    for what in _last_things(task, last_output, task.completed_at):
        number += 1
        yield Event(number, what)


def _last_things(
    task: Task, last_output: Output | None, at: int
) -> Iterator[Output | StatusChanged | UsageReported | Done]:
    rest = _rest_of_output(task, last_output)
    if rest is not None:
        yield rest
    latest = task.attempts[-1] if task.started_at is not None else None
    yield StatusChanged(
        task.status,
        0 if latest is None else latest.number,
        at,
        None if latest is None else latest.outcome,
        None if task.error is None else task.error.code,
    )
    if task.usage is not None:
        yield UsageReported(task.usage)
    yield Done(task)


class _Result(Struct):
    output: Any


_decode_result = msgspec.json.Decoder(_Result).decode


def _rest_of_output(task: Task, last: Output | None) -> Output | None:
    """The end of a text, as far as it was not recorded: mostly all of it. None: there is none."""
    output = None if task.result is None else _decode_result(task.result).output
    start, index = 0, 0
    if last is not None and last.attempt == task.attempt:
        start, index = last.end, last.index + 1
    if not isinstance(output, str) or len(output) <= start:
        return None
    return Output(output[start:], index, task.attempt, len(output))
