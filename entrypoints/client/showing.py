"""Tasks and queues as people read them, and as scripts do.

On a terminal a list is a table; elsewhere its rows are lines, their cells separated by tabs.
"""

import sys
from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import click
import msgspec

from entrypoints.client.service import Task

_FIELDS: Final = (
    "task_id",
    "status",
    "model",
    "executor",
    "attempt",
    "failures",
    "queue_position",
    "progress",
    "created_at",
    "started_at",
    "completed_at",
    "retry_of",
)
_TASK_COLUMNS: Final = ("task", "status", "created", "model")
_QUEUE_COLUMNS: Final = ("of", "name", "pending", "running", "workers")
_WIDTHS: Final = {"task": 36, "status": 9, "created": 14}  # 80 columns leave 15 to the model

Row = Sequence[object]


def put(text: str) -> None:
    """Write this to standard output, at once and in UTF-8."""
    click.echo(text.encode(), nl=False)


def put_json(value: object) -> None:
    """Write one line of JSON."""
    put(f"{msgspec.json.encode(value).decode()}\n")


def text_of(value: object) -> str:
    """A text as it is, what else a result may be as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def put_task(task: Task) -> None:
    """What there is to say about a task: `name: value` lines, an empty line, and its output."""
    for name in _FIELDS:
        if task[name] is not None:
            put(f"{name}: {task[name]}\n")
    if task["error"]:
        put(f"error: {task['error']['code']}: {task['error']['message']}\n")
    output = task["result"]["output"] if task["result"] else task["partial_output"]
    if output is not None:
        put(f"\n{text_of(output)}\n")


def put_status(task: Task, *, as_json: bool) -> None:
    """Which task it is, and its status; the JSON is all of it."""
    if as_json:
        put_json(task)
    else:
        put(f"{task['task_id']}\t{task['status']}\n")


async def put_tasks(tasks: AsyncIterable[Task], *, as_json: bool) -> None:
    """A row for each task; written at once where it need not fit into a table."""
    if sys.stdout.isatty() and not as_json:
        _put_rows(_TASK_COLUMNS, [_task_row(task) async for task in tasks])
        return
    async for task in tasks:
        if as_json:
            put_json(task)
        else:
            _put_rows(_TASK_COLUMNS, [_task_row(task)])


def put_queue(queue: dict[str, Any]) -> None:
    """What waits and what runs: in all, by executor, and by model."""
    _put_rows(_QUEUE_COLUMNS, _queue_rows(queue))


def _task_row(task: Task) -> Row:
    return [task["task_id"], task["status"], _local(task["created_at"]), task["model"]]


def _local(instant: str) -> str:
    """A moment by the clock of who looks, where somebody looks."""
    if not sys.stdout.isatty():
        return instant
    return datetime.fromisoformat(instant).astimezone().strftime("%m-%d %H:%M:%S")


def _queue_rows(queue: dict[str, Any]) -> Iterator[Row]:
    yield "all", None, *_live(queue["by_status"]), None
    for name, load in queue["by_executor"].items():
        yield "executor", name, *_live(load), load["workers"]
    for name, live in queue["by_model"].items():
        yield "model", name or None, *_live(live), None


def _live(counted: dict[str, int]) -> tuple[int, int]:
    return counted["pending"], counted["running"]


def _put_rows(columns: Sequence[str], rows: Iterable[Row]) -> None:
    if not sys.stdout.isatty():
        for row in rows:
            put("\t".join(map(_cell, row)) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, min_width=_WIDTHS.get(name))
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    Console().print(table)


def _cell(value: object) -> str:
    """The value without what would end a cell."""
    return "" if value is None else " ".join(str(value).split())
