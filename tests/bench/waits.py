"""Long polls: how long after the end of a task its clients hear of it."""

from collections.abc import Callable, Mapping

import load
import tasks
from bench import Bench, Contestant, Figure, Line
from contestants import (
    BARE,
    MEMORY,
    QUIET,
    SQLITE,
    Start,
    in_postgres,
    in_two_processes,
    sampled,
    service,
)
from latency import IDLE_PER_SECOND, answered_at_length, middle_and_end
from servers import Server

_WAITERS = 1_000
_TASK_SECONDS = 0.05
_LONGER_SECONDS = 3.0


def _heard(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    """From `completed_at` to the answer of the submit that waited for it."""
    request = tasks.submit("Prefer: wait=30", delay_seconds=_TASK_SECONDS)
    seconds = bench.scale.paced_seconds
    answers = bench.load(load.paced, server, seconds, request, IDLE_PER_SECOND)
    ended = [tasks.completed_at(body) for body in answers.bodies]
    return middle_and_end(label, ended, answers.received)


def _heard_by(waiters: int) -> Callable[[Bench, Server, str], Mapping[str, float]]:
    """From `completed_at` to the answer that came last, of so many that waited for one task."""

    def measure(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
        submit = tasks.submit(delay_seconds=_LONGER_SECONDS)
        [task_id] = tasks.ids(bench.load(load.each, server, [submit]))
        wait = tasks.get(task_id, "Prefer: wait=60")
        answers = bench.load(load.each, server, [wait] * waiters, waiters)
        ended = max(tasks.completed_at(body) for body in answers.bodies)
        return {label: (max(answers.received) - ended) * 1000}

    return measure


def _waiters(label: str, start: Start) -> list[Contestant]:
    return [
        sampled(f"{label}, {number:,} waiting", start, _heard_by(number))
        for number in (1, _WAITERS)
    ]


LONG_POLL = Figure(
    "long-poll",
    "50 submits a second for 20 s that wait for their task: its end to their answer, p50 and p99",
    "ms",
    [
        sampled("bare Litestar", BARE, answered_at_length),
        sampled("memory", service(MEMORY, QUIET), _heard),
        sampled("SQLite", service(SQLITE, QUIET), _heard),
        sampled("PostgreSQL, one process", in_postgres(QUIET), _heard),
        sampled("PostgreSQL, two processes", in_two_processes(QUIET), _heard),
    ],
    [
        Line(f"{label}, p{percent}", over and f"{over}, p{percent}")
        for label, over in [
            ("bare Litestar", None),
            ("memory", "bare Litestar"),
            ("SQLite", "bare Litestar"),
            ("PostgreSQL, one process", "bare Litestar"),
            ("PostgreSQL, two processes", "bare Litestar"),
        ]
        for percent in (50, 99)
    ],
)

WAITERS = Figure(
    "waiters",
    "a thousand long polls for one task: its end to the last of their answers",
    "ms",
    [
        *_waiters("memory", service(MEMORY, QUIET)),
        *_waiters("SQLite", service(SQLITE, QUIET)),
    ],
    [
        Line("memory, 1 waiting"),
        Line("memory, 1,000 waiting", "memory, 1 waiting"),
        Line("SQLite, 1 waiting"),
        Line("SQLite, 1,000 waiting", "SQLite, 1 waiting"),
    ],
)
