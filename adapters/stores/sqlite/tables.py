"""The statements that write, and the numbers kept beside them. All of it runs in the writer thread.

Each method is the port's method of the same name, as a step of a transaction that `GroupCommit`
begins and ends. New tasks are stored together, when the transaction ends or one of them is looked
for. The numbers spare a look into the file where there is nothing to do; a transaction that is
rolled back takes what it did to them along. The counts are in the file too, so that opening counts
nothing.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from adapters.json_columns import json_text
from adapters.stores.sqlite.arrivals import Arrivals
from adapters.stores.sqlite.disk import DiskFloor
from adapters.stores.sqlite.numbers import Numbers
from adapters.stores.sqlite.reads import get
from adapters.stores.sqlite.rows import appended, claimed, event_rows, finished, moved, task_from
from adapters.stores.sqlite.statements import SQL
from domain.errors import StorageFull
from domain.events import lost_until
from domain.inference import Routes
from domain.instants import before
from domain.ports import (
    KEY_KEPT_SECONDS,
    PURGED_PER_SUBMIT,
    Accepted,
    Claim,
    Clock,
    Completed,
    Entry,
    Failed,
    Fence,
    Mismatch,
    Outcome,
    QueueFull,
    Reclaimed,
    Replayed,
    SubmitAnswer,
    SubmitLimits,
    TaskCounts,
    settled,
)
from domain.retention import RetentionPolicy
from domain.task import DEADLINE_EXCEEDED, NewTask, Task, TaskStatus

_RIPENED_PER_CLAIM: Final = 10_000


class Tables:
    """The tables of one file, and what is known about them."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, floor: DiskFloor) -> None:
        """Every lease found in the file is expired: its process has gone."""
        self._connection = connection
        self._execute: Callable[..., sqlite3.Cursor] = connection.execute
        self._execute_many = connection.executemany
        self._clock = clock
        self._floor = floor
        self._execute(SQL["expire_leases"])
        [counts] = self._execute(SQL["read_counts"])
        self._numbers = Numbers(
            newest=self._number("newest_number") or 0,
            counts=dict(zip(TaskStatus, counts, strict=True)),
            oldest_completion=self._number("oldest_completion"),
            first_due=self._number("first_due"),
        )
        self._arrivals = Arrivals(connection)
        self._unplaced: Counter[RetentionPolicy] = Counter()
        self.committed()

    # --- the transaction ---------------------------------------------------------------------

    def finish(self) -> None:
        """Before the commit: store all that was submitted, make room once, write the counts."""
        self._arrivals.store()
        for retention, unplaced in self._unplaced.items():
            self.purge(retention, PURGED_PER_SUBMIT, arriving=unplaced)
        if self._numbers.counts != self._committed.counts:
            self._write_counts()

    def committed(self) -> None:
        """The transaction is committed: what it changed is true from now on."""
        self._arrivals.forget()
        self._unplaced.clear()
        self._committed = self._numbers.copy()
        self.counts = TaskCounts(**{s.value: n for s, n in self._numbers.counts.items()})

    def roll_back(self) -> None:
        """The transaction was rolled back."""
        self._arrivals.forget()
        self._unplaced.clear()
        self._numbers = self._committed.copy()

    # --- TaskStore ---------------------------------------------------------------------------

    def submit(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[SubmitAnswer] | StorageFull:
        """See `TaskStore.submit`. Room is made once for all plain submits of the transaction."""
        shortage = self._floor.shortage()
        if shortage is not None:
            return shortage
        now = self._clock.now()
        if any(new.idempotency is not None for new in new_tasks):
            # At once, for the keys of the tasks that are removed are free.
            self.purge(limits.retention, PURGED_PER_SUBMIT, arriving=len(new_tasks))
            return [self._repeated(new, now) or self._add(new, now, limits) for new in new_tasks]
        answers: list[SubmitAnswer] = [self._add(new, now, limits) for new in new_tasks]
        self._unplaced[limits.retention] += sum(isinstance(a, QueueFull) for a in answers)
        return answers

    def request_cancel(self, task_id: str, owner: str | None) -> tuple[Task, Task] | None:
        """See `TaskStore.request_cancel`; gives the task as it was, and as it is now."""
        task, now = self._visible(task_id, owner), self._clock.now()
        if task is None:
            return None
        asked = task.cancel_requested(now)
        return task, task if asked is task else self._move(task, asked, now)

    def delete(self, task_id: str, owner: str | None) -> TaskStatus | None:
        """See `TaskStore.delete`; gives the status that the task had."""
        task = self._visible(task_id, owner)
        if task is None:
            return None
        self._remove("delete_task", {"id": task_id})
        return task.status

    def purge(self, retention: RetentionPolicy, limit: int, *, arriving: int = 0) -> int:
        """See `TaskStore.purge`. `arriving` tasks are counted as stored already."""
        removed = 0
        cutoff = retention.finished_before(self._clock.now())
        oldest = self._numbers.oldest_completion
        if cutoff is not None and oldest is not None and oldest < cutoff:
            removed = self._remove("purge_expired", {"before": cutoff, "limit": limit})
        total = sum(self._numbers.counts.values())
        excess = min(retention.excess(total, arriving), limit - removed)
        if excess > 0 and self._numbers.oldest_completion is not None:
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
        self._ripen(now)
        claims = [
            Claim(task_from(row).claimed(now), *row[-2:])
            for executor, free in room.items()
            if free > 0
            for row in self._due(executor, now, free)
        ]
        taken = [claimed(claim.task, worker, until) for claim in claims]
        self._execute_many(SQL["claim_task"], taken)
        self._numbers.move(TaskStatus.PENDING, TaskStatus.RUNNING, len(claims))
        return claims

    def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        """See `TaskQueue.renew`."""
        until = self._clock.monotonic() + lease_seconds
        return {fence for fence in fences if self._renew(fence, until)}

    def settle(self, outcomes: Sequence[Outcome]) -> list[TaskStatus | None]:
        """See `TaskQueue.settle`."""
        now = self._clock.now()
        return [self._finish(outcome, now) or self._settle(outcome, now) for outcome in outcomes]

    def append(self, entries: Sequence[Entry]) -> list[bool]:
        """See `TaskQueue.append`."""
        return [self._append(entry) for entry in entries]

    def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        """See `TaskQueue.reclaim`."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        expired = self._execute(SQL["reclaim_expired"], {"monotonic": monotonic, "limit": limit})
        return [self._reclaim(task_id, now, max_crashes) for [task_id] in expired.fetchall()]

    def expire(self, limit: int) -> list[str]:
        """See `TaskQueue.expire`; gives the ids."""
        now = self._clock.now()
        values = {"now": now, "limit": limit, "error": json_text(DEADLINE_EXCEEDED)}
        expired = [task_id for [task_id] in self._execute(SQL["expire_tasks"], values)]
        self._numbers.move(TaskStatus.PENDING, TaskStatus.FAILED, len(expired))
        self._numbers.note_completion(now if expired else None)
        return expired

    def reroute(self, executors: Collection[str], routes: Routes) -> int:
        """See `TaskQueue.reroute`."""
        return sum(
            self._reroute(executor, model, routes.executor_for(model))
            for executor, model in self._execute(SQL["reroute_pending"]).fetchall()
            if executor not in executors
        )

    # --- new tasks ---------------------------------------------------------------------------

    def _add(self, new: NewTask, now: int, limits: SubmitLimits) -> Accepted | QueueFull:
        pending = self._numbers.counts[TaskStatus.PENDING]
        if pending >= limits.max_pending:
            return QueueFull(pending)
        task = new.accepted(now)
        self._numbers.newest += 1
        self._arrivals.add(self._numbers.newest, new, task)
        self._numbers.counts[TaskStatus.PENDING] += 1
        if task.due_at > now:
            self._numbers.note_waiting(task.due_at)
        return Accepted(task)

    def _repeated(self, new: NewTask, now: int) -> Replayed | Mismatch | None:
        """The answer to a key that is in use."""
        if new.idempotency is None:
            return None
        self._arrivals.store()
        values = {"owner": new.owner, "key": new.idempotency.key}
        self._execute(SQL["free_key"], {**values, "before": before(now, KEY_KEPT_SECONDS)})
        holder = self._execute(SQL["key_holder"], values).fetchone()
        if holder is None:
            return None
        task_id, fingerprint = holder
        same = fingerprint == new.idempotency.fingerprint
        return Replayed(self._task(task_id)) if same else Mismatch()

    # --- one task ----------------------------------------------------------------------------

    def _task(self, task_id: str) -> Task:
        """A task that is there."""
        [row] = self._execute(SQL["get_task"], {"id": task_id, "owner": None})
        return task_from(row)

    def _visible(self, task_id: str, owner: str | None) -> Task | None:
        """A task that may be one of this very transaction."""
        self._arrivals.store()
        return get(self._connection, task_id, owner)

    def _ripen(self, now: int) -> None:
        """Let those that became due stand in turn; a comparison where there are none."""
        if self._numbers.first_due is None or self._numbers.first_due > now:
            return
        self._execute(SQL["ripen_tasks"], {"now": now, "limit": _RIPENED_PER_CLAIM})
        self._numbers.first_due = self._number("first_due")

    def _due(self, executor: str, now: int, free: int) -> list[tuple[Any, ...]]:
        values = {"executor": executor, "now": now, "room": free}
        return self._execute(SQL["claim_due"], values).fetchall()

    def _renew(self, fence: Fence, until: float) -> bool:
        values = {"id": fence.task_id, "attempt": fence.attempt, "lease_until": until}
        return self._execute(SQL["renew_lease"], values).rowcount == 1

    def _finish(self, outcome: Outcome, now: int) -> TaskStatus | None:
        """The usual end, in one statement; None: it is not that, and nothing happened."""
        if not isinstance(outcome, Completed | Failed):
            return None
        if self._execute(SQL["finish_task"], finished(outcome, now)).rowcount == 0:
            return None
        status = TaskStatus.FAILED
        if isinstance(outcome, Completed):
            status = TaskStatus.COMPLETED
            self._keep_result(outcome)
        self._numbers.move(TaskStatus.RUNNING, status)
        self._numbers.note_completion(now)
        return status

    def _keep_result(self, outcome: Completed) -> None:
        """Usage is written apart, where there is any: it sets off a trigger, which costs more."""
        task_id = outcome.fence.task_id
        self._execute(SQL["finish_result"], {"id": task_id, "result": outcome.result})
        if outcome.usage is not None:
            usage = {"id": task_id, "usage": json_text(outcome.usage)}
            self._execute(SQL["finish_usage"], usage)

    def _settle(self, outcome: Outcome, now: int) -> TaskStatus | None:
        """Any other end: the task comes back, is cancelled, or is no longer this worker's."""
        fence = outcome.fence
        task = get(self._connection, fence.task_id, owner=None)
        if task is None or not task.is_running(fence.attempt):
            return None
        return self._move(task, settled(task, outcome, now), now).status

    def _append(self, entry: Entry) -> bool:
        row = self._execute(SQL["append_to_task"], appended(entry)).fetchone()
        if row is not None:
            self._execute_many(SQL["append_event"], event_rows(row[0], entry))
            return True
        fence = entry.fence
        task = get(self._connection, fence.task_id, owner=None)
        return task is not None and task.is_running(fence.attempt)

    def _reclaim(self, task_id: str, now: int, max_crashes: int) -> Reclaimed:
        task = self._task(task_id)
        lost = self._move(task, task.worker_vanished(now, max_crashes), now)
        return Reclaimed(Fence(task_id, task.attempt), lost.status)

    def _move(self, task: Task, to: Task, now: int) -> Task:
        # What kept its turn was due when it was claimed, whatever the clock says now.
        is_waiting = to.due_at > now and to.due_at != task.due_at
        self._execute(SQL["move_task"], moved(to, is_waiting))
        if lost := lost_until(to):
            self._execute(SQL["forget_events"], {"id": to.id, "until": lost})
        self._numbers.move(task.status, to.status)
        self._numbers.note_completion(to.completed_at)
        if is_waiting:
            self._numbers.note_waiting(to.due_at)
        return to

    def _reroute(self, executor: str, model: str | None, chosen: str) -> int:
        values = {"executor": executor, "model": model, "chosen": chosen}
        return self._execute(SQL["reroute_tasks"], values).rowcount

    # --- the numbers -------------------------------------------------------------------------

    def _remove(self, statement: str, values: Mapping[str, Any]) -> int:
        statuses = [TaskStatus(status) for [status] in self._execute(SQL[statement], values)]
        for status in statuses:
            self._numbers.counts[status] -= 1
        self._numbers.oldest_completion = self._number("oldest_completion")
        return len(statuses)

    def _number(self, statement: str) -> int | None:
        [[number]] = self._execute(SQL[statement])
        return None if number is None else int(number)

    def _write_counts(self) -> None:
        self._execute(SQL["write_counts"], {s.value: n for s, n in self._numbers.counts.items()})
