"""What is only looked at: each function is the port's method of the same name, on any connection.

The reader thread runs them in a snapshot of what is committed; `Tables` runs `get` in its
transaction.
"""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from heapq import merge
from typing import Any

from adapters.json_columns import output_from, recorded_from
from adapters.stores.sqlite.rows import searched, task_from
from adapters.stores.sqlite.statements import SQL
from domain.events import Event, LogPage, Output
from domain.inference import Usage
from domain.instants import seconds_between
from domain.ports import (
    LONGEST_POSITION,
    Fence,
    Interruption,
    Payload,
    QueueLine,
    Standing,
    UsageLine,
    summed,
)
from domain.query import ROWS_PER_PAGE, Found, Page, Position, TaskQuery
from domain.task import Task, TaskStatus


def get(connection: sqlite3.Connection, task_id: str, owner: str | None) -> Task | None:
    """See `TaskStore.get`."""
    row = _row(connection, "get_task", {"id": task_id, "owner": owner})
    return None if row is None else task_from(row)


def payload(connection: sqlite3.Connection, task_id: str, owner: str | None) -> Payload | None:
    """See `TaskStore.payload`."""
    row = _row(connection, "get_payload", {"id": task_id, "owner": owner})
    return None if row is None else Payload(*row)


def find(connection: sqlite3.Connection, query: TaskQuery) -> Page:
    """See `TaskStore.find`. What does not match costs a look at its row, and no more."""
    found: list[Found] = []
    last = Position(0, 0)
    for looked_at, (created_at, number, matches) in enumerate(_walk(connection, query)):
        if looked_at == ROWS_PER_PAGE or (matches and len(found) == query.limit):
            return Page(found, last)
        last = Position(created_at, number)
        if matches:
            found.append(_found(connection, number, query))
    return Page(found, None)


def queue_position(connection: sqlite3.Connection, task_id: str, now: int) -> int | None:
    """See `TaskStore.queue_position`."""
    row = _row(connection, "queue_position", {"id": task_id, "now": now, "most": LONGEST_POSITION})
    return None if row is None else min(row[0], LONGEST_POSITION)


def log(
    connection: sqlite3.Connection, task_id: str, owner: str | None, after: int, limit: int
) -> LogPage | None:
    """See `TaskStore.log`."""
    task = get(connection, task_id, owner)
    if task is None:
        return None
    if not task.recorded:
        return LogPage(task, [], True, None)
    values = {"id": task_id, "after": after, "limit": limit + 1}
    rows = connection.execute(SQL["read_log"], values).fetchall()
    events = [Event(number, recorded_from(what)) for number, what in rows[:limit]]
    return LogPage(task, events, len(rows) <= limit, _last_output(connection, task))


def standings(connection: sqlite3.Connection, task_ids: Collection[str]) -> Mapping[str, Standing]:
    """See `TaskStore.standings`."""
    rows = {task_id: _row(connection, "standing", {"id": task_id}) for task_id in task_ids}
    return {
        task_id: Standing(TaskStatus(row[0]), *row[1:])
        for task_id, row in rows.items()
        if row is not None
    }


def queue(
    connection: sqlite3.Connection, owner: str | None, now: int
) -> tuple[list[QueueLine], float | None, list[UsageLine]]:
    """The lines of `TaskStore.queue`, its `oldest_pending_seconds`, and its usage."""
    rows = connection.execute(SQL["queue_lines"], {"owner": owner, "now": now}).fetchall()
    due_since = [row[-1] for row in rows if row[-1] is not None]
    oldest = seconds_between(min(due_since), now) if due_since else None
    return [QueueLine(*row[:-1]) for row in rows], oldest, _usage(connection, owner)


def backlog_seconds(connection: sqlite3.Connection, now: int) -> float:
    """See `TaskStore.backlog_seconds`."""
    executors = connection.execute(SQL["pending_executors"]).fetchall()
    nexts = [
        _row(connection, "next_in_turn", {"executor": executor, "now": now})
        for [executor] in executors
    ]
    return max([0.0, *(seconds_between(row[0], now) for row in nexts if row is not None)])


def interruptions(
    connection: sqlite3.Connection, fences: Collection[Fence]
) -> Mapping[Fence, Interruption]:
    """See `TaskQueue.interruptions`."""
    judged = {fence: _interruption(connection, fence) for fence in fences}
    return {fence: why for fence, why in judged.items() if why is not None}


def _interruption(connection: sqlite3.Connection, fence: Fence) -> Interruption | None:
    row = _row(connection, "running_attempt", {"id": fence.task_id, "attempt": fence.attempt})
    if row is None:
        return Interruption.LOST
    [cancel_requested_at] = row
    return None if cancel_requested_at is None else Interruption.CANCEL


def _usage(connection: sqlite3.Connection, owner: str | None) -> list[UsageLine]:
    rows = connection.execute(SQL["usage_lines"], {"owner": owner})
    return summed(UsageLine(executor, model, Usage(*tokens)) for executor, model, *tokens in rows)


def _last_output(connection: sqlite3.Connection, task: Task) -> Output | None:
    row = None if task.result is None else _row(connection, "last_output", {"id": task.id})
    return None if row is None else output_from(row[0])


def _walk(connection: sqlite3.Connection, query: TaskQuery) -> Iterator[tuple[int, int, int]]:
    """Creation and number of one task after another, and whether it matches."""
    owners = [query.owner]
    if query.owner is None:
        owners = [owner for [owner] in connection.execute(SQL["owners"])]
    statement = SQL["find_newest_first" if query.newest_first else "find_oldest_first"]
    values = searched(query)
    walks = [connection.execute(statement, {**values, "owner": owner}) for owner in owners]
    return merge(*walks, reverse=query.newest_first)


def _found(connection: sqlite3.Connection, number: int, query: TaskQuery) -> Found:
    values = {
        "number": number,
        "with_result": query.with_result,
        "with_input": query.with_input,
    }
    [row] = connection.execute(SQL["found_task"], values)
    return Found(task_from(row), row[-1])


def _row(
    connection: sqlite3.Connection, statement: str, values: Mapping[str, Any]
) -> tuple[Any, ...] | None:
    """The one row of the statement, if there is one."""
    try:
        row: tuple[Any, ...] | None = connection.execute(SQL[statement], values).fetchone()
    except UnicodeEncodeError:  # no text that can be stored, so nothing is stored under it
        return None
    return row
