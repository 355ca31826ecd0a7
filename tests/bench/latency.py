"""How long a client waits, at a pace that leaves the server idle most of the time."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Final

import load
import tasks
from bench import Bench, Figure, Line
from contestants import (
    BARE,
    MEMORY,
    QUIET,
    SQLITE,
    in_postgres,
    in_two_processes,
    sampled,
    service,
)
from load import Answers
from servers import Server

IDLE_PER_SECOND = 50
_PACED_PER_SECOND = 100
_STAMPING: Final = {
    "EXECUTORS__STAMPING__KIND": "stamping:StampingExecutor",
    "INFERENCE__DEFAULT_EXECUTOR": "stamping",
}


def _answered(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    answers = bench.load(load.paced, server, bench.scale.seconds, tasks.SUBMIT, IDLE_PER_SECOND)
    return {label: percentile(50, answers.sent, answers.received)}


def _begun(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    """From the sending of the submit to the first line that the executor runs."""
    answers, began = _run(bench, server, bench.scale.seconds)
    return {label: percentile(50, answers.sent, began)}


def answered_at_length(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    seconds = bench.scale.paced_seconds
    answers = bench.load(load.paced, server, seconds, tasks.SUBMIT, IDLE_PER_SECOND)
    return middle_and_end(label, answers.sent, answers.received)


def _begun_at_length(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    answers, began = _run(bench, server, bench.scale.paced_seconds)
    return middle_and_end(label, answers.sent, began)


def _run(bench: Bench, server: Server, seconds: float) -> tuple[Answers, list[float]]:
    """Submit for so long; the answers, and when the execution of each task began."""
    answers = bench.load(load.paced, server, seconds, tasks.SUBMIT, IDLE_PER_SECOND)
    made = tasks.ids(answers)
    views = tasks.finished(bench, server, made)
    return answers, [views[task_id].result["output"] for task_id in made]


def middle_and_end(
    label: str, begins: Sequence[float], ends: Sequence[float]
) -> Mapping[str, float]:
    return {f"{label}, p{percent}": percentile(percent, begins, ends) for percent in (50, 99)}


def _paced(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    answers = bench.load(
        load.paced, server, bench.scale.paced_seconds, tasks.SUBMIT, _PACED_PER_SECOND
    )
    made = tasks.ids(answers)
    views = tasks.finished(bench, server, made)
    ends = [view.completed_at for view in (views[task_id] for task_id in made)]
    completed = [end.timestamp() for end in ends if end]
    return {
        f"{label}: submit answered, p99": percentile(99, answers.sent, answers.received),
        f"{label}: completed, p99": percentile(99, answers.sent, completed),
    }


def percentile(percent: int, begins: Sequence[float], ends: Sequence[float]) -> float:
    """Of the milliseconds between, pair by pair."""
    spans = [(end - begin) * 1000 for begin, end in zip(begins, ends, strict=True)]
    return statistics.quantiles(spans, n=100)[percent - 1]


IDLE = Figure(
    "idle",
    "idle (50 submits a second): submit sent to execution begun, p50; Litestar: to answer",
    "ms",
    [
        sampled("bare Litestar", BARE, _answered),
        sampled("memory", service(MEMORY, QUIET, _STAMPING), _begun),
        sampled("SQLite", service(SQLITE, QUIET, _STAMPING), _begun),
    ],
    [
        Line("bare Litestar"),
        Line("memory", "bare Litestar", at_most=2),
        Line("SQLite", "bare Litestar", at_most=3),
    ],
)

WAKE_UP = Figure(
    "wake-up",
    "the same for 20 s on PostgreSQL: API and worker in one process, and in two; p50 and p99",
    "ms",
    [
        sampled("bare Litestar", BARE, answered_at_length),
        sampled("one process", in_postgres(QUIET, _STAMPING), _begun_at_length),
        sampled("two processes", in_two_processes(QUIET, _STAMPING), _begun_at_length),
    ],
    [
        Line("bare Litestar, p50"),
        Line("bare Litestar, p99"),
        Line("one process, p50", "bare Litestar, p50"),
        Line("one process, p99", "bare Litestar, p99"),
        Line("two processes, p50", "bare Litestar, p50"),
        Line("two processes, p99", "bare Litestar, p99"),
    ],
)

PACED = Figure(
    "paced",
    "100 echo tasks a second for 20 s: submit sent to answer, and to `completed_at`",
    "ms",
    [
        sampled("memory", service(MEMORY), _paced),
        sampled("SQLite", service(SQLITE), _paced),
    ],
    [
        Line("memory: submit answered, p99"),
        Line("memory: completed, p99"),
        Line("SQLite: submit answered, p99"),
        Line("SQLite: completed, p99"),
    ],
)
