"""The statements, and the numbers kept beside them. All of it runs in the writer thread.

Each method is the port's method of the same name, as a step of a transaction that `GroupCommit`
begins and ends. The counts by status, and the instant at which the oldest finished task ended, are
kept in memory, so that the check on create compares numbers; a transaction that is rolled back
takes what it did to them along. The counts are in the file too, so that opening counts nothing.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from adapters.sql_files import statements_of
from adapters.stores.sqlite.disk import DiskFloor
from adapters.stores.sqlite.rows import claimed, payload, reclaimed, settled, submitted, task_from
from domain.errors import StorageFull
from domain.inference import Routes
from domain.ports import (
    PURGED_PER_SUBMIT,
    Accepted,
    Claim,
    Clock,
    Completed,
    Fence,
    Outcome,
    QueueFull,
    Reclaimed,
    SubmitLimits,
    TaskCounts,
)
from domain.retention import RetentionPolicy
from domain.task import NewTask, Task, TaskStatus

SQL: Final = statements_of(__package__)


def get(connection: sqlite3.Connection, task_id: str, owner: str) -> Task | None:
    """See `TaskStore.get`. Runs in the reader thread, on its own connection."""
    try:
        row = connection.execute(SQL["get_task"], (task_id, owner)).fetchone()
    except UnicodeEncodeError:  # no text that can be stored, so nothing is stored under it
        return None
    return None if row is None else task_from(row)


class Tables:
    """The tables of one file, and what is known about them."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, floor: DiskFloor) -> None:
        """Every lease found in the file is expired: its process has gone."""
        self._execute: Callable[..., sqlite3.Cursor] = connection.execute
        self._execute_many = connection.executemany
        self._clock = clock
        self._floor = floor
        self._execute(SQL["expire_leases"])
        [counts] = self._execute(SQL["read_counts"])
        self._counts = dict(zip(TaskStatus, counts, strict=True))
        self._oldest_completion = self._read_oldest_completion()
        [[self._number]] = self._execute(SQL["newest_number"])
        self._new_tasks: list[tuple[Any, ...]] = []
        self._new_payloads: list[tuple[Any, ...]] = []
        self._unplaced: Counter[RetentionPolicy] = Counter()
        self.committed()

    # --- the transaction ---------------------------------------------------------------------

    def finish(self) -> None:
        """Before the commit: store all that was submitted, make room once, write the counts."""
        if self._new_tasks:
            self._execute_many(SQL["submit_task"], self._new_tasks)
            self._execute_many(SQL["submit_payload"], self._new_payloads)
        for retention, unplaced in self._unplaced.items():
            self.purge(retention, PURGED_PER_SUBMIT, arriving=unplaced)
        if self._counts != self._committed_counts:
            self._write_counts()

    def committed(self) -> None:
        """The transaction is committed: what it changed is true from now on."""
        self._forget_submits()
        self._committed_number = self._number
        self._committed_counts = self._counts.copy()
        self._committed_oldest_completion = self._oldest_completion
        self.counts = TaskCounts(**{status.value: n for status, n in self._counts.items()})

    def roll_back(self) -> None:
        """The transaction was rolled back."""
        self._forget_submits()
        self._number = self._committed_number
        self._counts = self._committed_counts.copy()
        self._oldest_completion = self._committed_oldest_completion

    # --- TaskStore ---------------------------------------------------------------------------

    def submit(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[Accepted | QueueFull] | StorageFull:
        """See `TaskStore.submit`."""
        shortage = self._floor.shortage()
        if shortage is not None:
            return shortage
        now = self._clock.now()
        answers = [self._add(new, now, limits.max_pending) for new in new_tasks]
        self._unplaced[limits.retention] += sum(isinstance(a, QueueFull) for a in answers)
        return answers

    def purge(self, retention: RetentionPolicy, limit: int, *, arriving: int = 0) -> int:
        """See `TaskStore.purge`. `arriving` tasks are counted as stored already."""
        removed = 0
        before = retention.finished_before(self._clock.now())
        oldest = self._oldest_completion
        if before is not None and oldest is not None and oldest < before:
            removed = self._remove("purge_expired", {"before": before, "limit": limit})
        total = sum(self._counts.values())
        excess = min(retention.excess(total, arriving), limit - removed)
        if excess > 0 and self._oldest_completion is not None:
            removed += self._remove("purge_excess", {"limit": excess})
        return removed

    def check(self) -> StorageFull | None:
        """See `TaskStore.check`: a write that changes nothing."""
        self._write_counts()
        return self._floor.shortage()

    # --- TaskQueue ---------------------------------------------------------------------------

    def claim(self, worker: str, room: Mapping[str, int], lease_seconds: float) -> list[Claim]:
        """See `TaskQueue.claim`."""
        now, until = self._clock.now(), self._clock.monotonic() + lease_seconds
        claims = [
            Claim(task_from(row).claimed(now), *row[-2:])
            for executor, free in room.items()
            if free > 0
            for row in self._due(executor, now, free)
        ]
        taken = [claimed(claim.task, worker, until) for claim in claims]
        self._execute_many(SQL["claim_task"], taken)
        self._move(TaskStatus.PENDING, TaskStatus.RUNNING, len(claims))
        return claims

    def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        """See `TaskQueue.renew`."""
        until = self._clock.monotonic() + lease_seconds
        return {fence for fence in fences if self._renew(fence, until)}

    def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See `TaskQueue.settle`."""
        now = self._clock.now()
        return [self._settle(outcome, now) for outcome in outcomes]

    def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        """See `TaskQueue.reclaim`."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        expired = self._execute(SQL["reclaim_expired"], {"monotonic": monotonic, "limit": limit})
        moved = [task_from(row).worker_vanished(now, max_crashes) for row in expired.fetchall()]
        return [
            Reclaimed(Fence(task.id, task.attempt), task.status)
            for task in moved
            if self._reclaim(task, monotonic)
        ]

    def reroute(self, executors: Collection[str], routes: Routes) -> int:
        """See `TaskQueue.reroute`."""
        return sum(
            self._reroute(executor, model, routes.executor_for(model))
            for executor, model in self._execute(SQL["reroute_pending"]).fetchall()
            if executor not in executors
        )

    # --- one task ----------------------------------------------------------------------------

    def _add(self, new: NewTask, now: int, max_pending: int) -> Accepted | QueueFull:
        pending = self._counts[TaskStatus.PENDING]
        if pending >= max_pending:
            return QueueFull(pending)
        self._number += 1
        self._new_tasks.append(submitted(self._number, new, now))
        self._new_payloads.append(payload(self._number, new))
        self._counts[TaskStatus.PENDING] += 1
        return Accepted(new.accepted(now))

    def _due(self, executor: str, now: int, free: int) -> list[tuple[Any, ...]]:
        values = {"executor": executor, "now": now, "room": free}
        return self._execute(SQL["claim_due"], values).fetchall()

    def _renew(self, fence: Fence, until: float) -> bool:
        values = {"id": fence.task_id, "attempt": fence.attempt, "lease_until": until}
        return self._execute(SQL["renew_lease"], values).rowcount == 1

    def _settle(self, outcome: Outcome, now: int) -> bool:
        values = settled(outcome, now)
        if self._execute(SQL["settle_task"], values).rowcount == 0:
            return False
        if isinstance(outcome, Completed):
            result = {"id": outcome.fence.task_id, "result": outcome.result}
            self._execute(SQL["settle_result"], result)
        self._move(TaskStatus.RUNNING, TaskStatus(values["status"]))
        self._note_completion(values["completed_at"])
        return True

    def _reclaim(self, task: Task, monotonic: float) -> bool:
        if self._execute(SQL["reclaim_task"], reclaimed(task, monotonic)).rowcount == 0:
            return False
        self._move(TaskStatus.RUNNING, task.status)
        self._note_completion(task.completed_at)
        return True

    def _reroute(self, executor: str, model: str | None, chosen: str) -> int:
        values = {"executor": executor, "model": model, "chosen": chosen}
        return self._execute(SQL["reroute_tasks"], values).rowcount

    def _forget_submits(self) -> None:
        self._new_tasks.clear()
        self._new_payloads.clear()
        self._unplaced.clear()

    # --- the numbers -------------------------------------------------------------------------

    def _move(self, origin: TaskStatus, target: TaskStatus, tasks: int = 1) -> None:
        self._counts[origin] -= tasks
        self._counts[target] += tasks

    def _note_completion(self, completed_at: int | None) -> None:
        if completed_at is not None:
            self._oldest_completion = min(self._oldest_completion or completed_at, completed_at)

    def _remove(self, statement: str, values: Mapping[str, int]) -> int:
        statuses = [TaskStatus(status) for [status] in self._execute(SQL[statement], values)]
        for status in statuses:
            self._counts[status] -= 1
        self._oldest_completion = self._read_oldest_completion()
        return len(statuses)

    def _read_oldest_completion(self) -> int | None:
        [[instant]] = self._execute(SQL["oldest_completion"])
        return None if instant is None else int(instant)

    def _write_counts(self) -> None:
        self._execute(SQL["write_counts"], {s.value: n for s, n in self._counts.items()})
