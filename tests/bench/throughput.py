"""Requests and tasks a second, 64 clients at once."""

import uuid
from collections.abc import Mapping

import load
import tasks
from bench import Bench, Figure, Line
from contestants import (
    BARE,
    MEMORY,
    ORIGINAL,
    QUIET,
    RAW,
    SCANNING,
    SQLITE,
    Measurement,
    fresh,
    in_postgres,
    kept_in_memory,
    kept_in_sqlite,
    sampled,
    service,
)
from servers import Server

_READ = 500
_LISTED = 20
_IN_A_BATCH = 1_000
_BATCHES_AT_ONCE = 4  # so that a short run holds many
_KEYS_PER_SECOND = 20_000  # more than any store takes


def _sent(request: bytes) -> Measurement:
    """How often this request is answered."""

    def measure(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
        answers = bench.load(load.during, server, bench.scale.seconds, [request])
        return {label: answers.per_second}

    return measure


submit = _sent(tasks.SUBMIT_LONG)
submit_prompts = _sent(tasks.submit(text=tasks.PROMPT, delay_seconds=3600))
_submit_and_run = _sent(tasks.SUBMIT)


def get(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    made = tasks.ids(bench.load(load.each, server, [tasks.SUBMIT] * _READ))
    tasks.finished(bench, server, made)
    requests = [tasks.get(task_id) for task_id in made]
    return {label: bench.load(load.during, server, bench.scale.seconds, requests).per_second}


def drain(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    """From the first submit to the last `completed_at`."""
    answers = bench.load(load.each, server, [tasks.SUBMIT] * bench.scale.drained)
    views = tasks.finished(bench, server, tasks.ids(answers)).values()
    ended = max(view.completed_at.timestamp() for view in views if view.completed_at)
    return {label: len(views) / (ended - min(answers.sent))}


SUBMIT = Figure(
    "submit",
    "submit, 64 clients; the slots are taken by long tasks, the rest wait",
    "/s",
    [
        sampled("raw ASGI", RAW, submit),
        sampled("bare Litestar", BARE, submit),
        fresh("original design, scan on every create", SCANNING, submit),
        sampled("original design without its scan", ORIGINAL, submit),
        sampled("memory", service(MEMORY, QUIET), submit),
        sampled("SQLite", service(SQLITE, QUIET), submit),
        sampled("PostgreSQL", in_postgres(QUIET), submit),
        sampled("memory, logging as shipped", service(MEMORY), submit),
        sampled("SQLite, logging as shipped", service(SQLITE), submit),
    ],
    [
        Line("raw ASGI", "bare Litestar"),
        Line("bare Litestar"),
        Line("original design, scan on every create", "bare Litestar"),
        Line("original design without its scan", "bare Litestar"),
        Line("memory", "bare Litestar", at_least=0.9),
        Line("SQLite", "bare Litestar", at_least=0.7),
        Line("PostgreSQL", "bare Litestar"),
        Line("memory, logging as shipped", "bare Litestar", at_least=0.75),
        Line("SQLite, logging as shipped", "bare Litestar", at_least=0.6),
    ],
)

SUBMIT_AND_RUN = Figure(
    "submit-and-run",
    "submit, 64 clients, while the same core runs the echo tasks as they come",
    "/s",
    [
        sampled("original design without its scan", ORIGINAL, _submit_and_run),
        sampled("memory", service(MEMORY, QUIET), _submit_and_run),
        sampled("SQLite", service(SQLITE, QUIET), _submit_and_run),
    ],
    [
        Line("original design without its scan"),
        Line("memory", "original design without its scan"),
        Line("SQLite", "original design without its scan"),
    ],
)

PROMPT = Figure(
    "prompt",
    f"the same with a prompt of {len(tasks.PROMPT):,} characters",
    "/s",
    [
        sampled("bare Litestar", BARE, submit_prompts),
        sampled("memory", service(MEMORY, QUIET), submit_prompts),
        sampled("SQLite", service(SQLITE, QUIET), submit_prompts),
    ],
    [
        Line("bare Litestar"),
        Line("memory", "bare Litestar"),
        Line("SQLite", "bare Litestar"),
    ],
)

GET = Figure(
    "get",
    f"get of finished tasks ({_READ} in turn), 64 clients",
    "/s",
    [
        sampled("raw ASGI", RAW, get),
        sampled("bare Litestar", BARE, get),
        sampled("original design", ORIGINAL, get),
        sampled("memory", service(MEMORY, QUIET), get),
        sampled("SQLite", service(SQLITE, QUIET), get),
    ],
    [
        Line("raw ASGI", "bare Litestar"),
        Line("bare Litestar"),
        Line("original design", "bare Litestar"),
        Line("memory", "bare Litestar", at_least=0.85),
        Line("SQLite", "bare Litestar", at_least=0.6),
    ],
)

DRAIN = Figure(
    "drain",
    "drain of 5,000 echo tasks, first submit to last completion, 64 clients, 8 slots",
    "/s",
    [
        sampled("original design without its scan", ORIGINAL, drain),
        sampled("memory", service(MEMORY, QUIET), drain),
        sampled("SQLite", service(SQLITE, QUIET), drain),
    ],
    [
        Line("original design without its scan"),
        Line("memory", "original design without its scan", at_least=0.8),
        Line("SQLite", "original design without its scan", at_least=0.5),
    ],
)


def _submit_under_keys(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    """Each under a key of its own."""
    run = uuid.uuid4().hex
    number = round(_KEYS_PER_SECOND * bench.scale.seconds)
    keys = [f"Idempotency-Key: {run}-{key}" for key in range(number)]
    requests = [tasks.submit(key, delay_seconds=3600) for key in keys]
    return {label: bench.load(load.during, server, bench.scale.seconds, requests).per_second}


def _submit_batches(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    """Counts tasks, not requests."""
    batch = tasks.batch(_IN_A_BATCH, delay_seconds=3600)
    answers = bench.load(load.during, server, bench.scale.seconds, [batch], _BATCHES_AT_ONCE)
    if any(b'"error"' in body for body in answers.bodies):
        raise SystemExit("a batch was not taken whole")
    return {label: answers.per_second * _IN_A_BATCH}


def _list(query: str) -> Measurement:
    def measure(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
        tasks.ids(bench.load(load.each, server, [tasks.SUBMIT] * _LISTED))
        return _sent(tasks.listed(query))(bench, server, label)

    return measure


KEYED = Figure(
    "keyed",
    "submit, 64 clients, each under an idempotency key of its own",
    "/s",
    [
        sampled("memory", service(MEMORY, QUIET), submit),
        sampled("memory, with a key", service(MEMORY, QUIET), _submit_under_keys),
        sampled("SQLite", service(SQLITE, QUIET), submit),
        sampled("SQLite, with a key", service(SQLITE, QUIET), _submit_under_keys),
        sampled("PostgreSQL", in_postgres(QUIET), submit),
        sampled("PostgreSQL, with a key", in_postgres(QUIET), _submit_under_keys),
    ],
    [
        Line("memory"),
        Line("memory, with a key", "memory"),
        Line("SQLite"),
        Line("SQLite, with a key", "SQLite"),
        Line("PostgreSQL"),
        Line("PostgreSQL, with a key", "PostgreSQL"),
    ],
)

BATCH = Figure(
    "batch",
    f"tasks submitted: one a request, 64 clients; {_IN_A_BATCH:,} a request, 4 clients",
    "/s",
    [
        sampled("memory", service(MEMORY, QUIET), submit),
        sampled("memory, in batches", service(MEMORY, QUIET), _submit_batches),
        sampled("SQLite", service(SQLITE, QUIET), submit),
        sampled("SQLite, in batches", service(SQLITE, QUIET), _submit_batches),
    ],
    [
        Line("memory"),
        Line("memory, in batches", "memory"),
        Line("SQLite"),
        Line("SQLite, in batches", "SQLite"),
    ],
)

LIST = Figure(
    "list",
    f"list of the newest {_LISTED} tasks, 64 clients, with 1,000,000 finished tasks kept",
    "/s",
    [
        sampled("memory, few kept", service(MEMORY, QUIET), _list("limit=20")),
        sampled("memory, 1,000,000 kept", kept_in_memory, _list("limit=20")),
        sampled("SQLite, few kept", service(SQLITE, QUIET), _list("limit=20")),
        sampled("SQLite, 1,000,000 kept", kept_in_sqlite, _list("limit=20")),
        sampled("SQLite, 1,000,000 kept, none matches", kept_in_sqlite, _list("status=failed")),
    ],
    [
        Line("memory, few kept"),
        Line("memory, 1,000,000 kept", "memory, few kept"),
        Line("SQLite, few kept"),
        Line("SQLite, 1,000,000 kept", "SQLite, few kept"),
        Line("SQLite, 1,000,000 kept, none matches", "SQLite, few kept"),
    ],
)

KEPT = Figure(
    "kept",
    "submit, 64 clients, with 1,000,000 finished tasks kept",
    "/s",
    [
        sampled("memory, none kept", service(MEMORY, QUIET), submit),
        sampled("memory, 1,000,000 kept", kept_in_memory, submit),
        sampled("SQLite, none kept", service(SQLITE, QUIET), submit),
        sampled("SQLite, 1,000,000 kept", kept_in_sqlite, submit),
    ],
    [
        Line("memory, none kept"),
        Line("memory, 1,000,000 kept", "memory, none kept", at_least=0.95),
        Line("SQLite, none kept"),
        Line("SQLite, 1,000,000 kept", "SQLite, none kept", at_least=0.9),
    ],
)
