"""A file of tasks: each line is submitted and waited for, and has one line of results.

    tasks.jsonl ─> lines without a result ─> submit, wait (so many at once) ─> results.jsonl

A run may be killed at any moment and started again. What has a result is left out then. What was
submitted and has none is submitted again under the same idempotency key, for this follows from what
the line says, where it stands and where its result goes; so the service tells of the same task.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from entrypoints.client.exit_codes import ExitCode
from entrypoints.client.results import Results
from entrypoints.client.service import (
    LONGEST_WAIT_SECONDS,
    TOO_MANY_REQUESTS,
    Refused,
    Service,
    Unavailable,
)
from entrypoints.client.submission import Fields, body_of_line

_DIGITS_OF_A_KEY: Final = 40


async def run(service: Service, tasks: Path, out: Path, given: Fields, at_once: int) -> ExitCode:
    """Let every line of `tasks` have its result in `out`, and tell what they were."""
    count = sum(1 for _ in _lines(tasks))
    with Results(out) as results:
        missing = (line for line in _lines(tasks) if line[0] not in results.lines)
        try:
            with _bar(count, len(results.lines)) as advance:

                async def work_off() -> None:
                    for number, text in missing:
                        body = body_of_line(text, given)
                        key = _key(number, body, out)
                        results.add(number, await _result(service, body, key))
                        advance()

                await _side_by_side(work_off, at_once)
        finally:
            _tell(results, count, out)
    all_completed = results.outcomes.total() == results.outcomes["completed"]
    return ExitCode.COMPLETED if all_completed else ExitCode.FAILED


def _lines(tasks: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, with their numbers from 1."""
    with tasks.open("rb") as file:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                yield number, text


def _key(number: int, body: bytes, out: Path) -> str:
    digest = sha256(b"%s\0%s" % (str(out.resolve()).encode(), body))
    return f"{digest.hexdigest()[:_DIGITS_OF_A_KEY]}-{number}"


async def _result(service: Service, body: bytes, key: str) -> dict[str, Any]:
    """What came of it, however long the queue is full: here there is time."""
    while True:
        try:
            task = await service.submit(body, key, LONGEST_WAIT_SECONDS)
            is_done = task.get("done", False)
            return {"task": task if is_done else await service.until_done(task["task_id"])}
        except Refused as refused:
            return {"error": refused.reason}
        except Unavailable as fault:
            if fault.status != TOO_MANY_REQUESTS:
                raise
            await asyncio.sleep(fault.retry_after_seconds or 1)


async def _side_by_side(work: Callable[[], Coroutine[Any, Any, None]], number: int) -> None:
    """Do it so many times at once. The first error ends all of them."""
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


@contextmanager
def _bar(count: int, done: int) -> Iterator[Callable[[], None]]:
    """How far it is, on standard error, if that is a terminal; what to call for each line."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield partial(bar.advance, bar.add_task("", total=count, completed=done))


def _tell(results: Results, count: int, out: Path) -> None:
    outcomes = ", ".join(f"{number} {what}" for what, number in results.outcomes.most_common())
    end = "." if len(results.lines) >= count else "; the same command goes on."
    click.echo(f"{outcomes or 'nothing yet'}, of {count} lines, in {out}{end}", err=True)
