"""Claims tasks, runs them, keeps their leases, and writes how they ended.

Seven loops share the attempts of this process:

    claim      offers the free slots to the store, and starts what it gives
    watch      stops attempts that take too long, or whose lease is no longer sure
    renew      extends all leases in one call, every third of a lease
    interrupt  stops what clients cancelled or deleted: told by a hint, or found by asking
    record     stores what attempts say on their way: at once while somebody watches, else seldom
    settle     writes the outcomes that came together in one call
    announce   tells now and then that this worker is there

An attempt is an asyncio task of its own; one that waits in the store costs nothing here. A lease is
trusted until `claim started + lease - margin`, counted from before the call, for the store may have
counted from any moment of it. An attempt is stopped by cancelling it, never by cancelling a write:
outcomes are written by the settle loop, which nobody cancels before the drain is over.

An attempt whose cancellation was asked for ends when its executor let go, or after a grace of five
seconds. A slot stays taken until the executor let go. Outcomes go first: nothing is claimed while
one waits to be written, so a store that fails is given no more work, and what is free here is free
there. The fence, not the lease, makes a late write harmless; so an outcome is offered until the
store answers.
"""

import asyncio
import traceback
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

import structlog
from msgspec import Struct

from domain.errors import StoreUnavailable
from domain.execution import Execution
from domain.ports import (
    ATTEMPT_OUTCOMES,
    Cancelled,
    Claim,
    Clock,
    Completed,
    Crashed,
    Entry,
    Failed,
    Fence,
    HandedBack,
    Interruption,
    Outcome,
    Retry,
    Store,
)
from domain.recording import Recording
from domain.task import AttemptOutcome, TaskError, TaskStatus
from entrypoints.readiness import Readiness
from entrypoints.worker.loop import LONGEST_WAIT_SECONDS, repeat, wait_for_wake
from entrypoints.worker.slots import Slots

_WATCH_EVERY_SECONDS = 0.05
_LEASE_MARGIN = 0.1  # of the lease: room to stop an attempt before somebody else starts the next
_CANCEL_GRACE_SECONDS = 5.0
_ANNOUNCE_EVERY_SECONDS = 5.0
_ANNOUNCED_FOR_SECONDS = 15.0
_RECORD_EVERY_SECONDS = 0.05
_RECORD_UNWATCHED_EVERY_SECONDS = 1.0
_SECONDS_PER_RECORDED = 1 / 20_000  # so long attempts record less often: 12,000 events in an hour
_LET_GO_SECONDS = 0.5
_LAST_WRITES_SECONDS = 0.7
_LAST_WRITES_POLL_SECONDS = 0.01
_NOT_STORABLE = TaskError("result_not_storable", "the store could not take the result", False)


class DispatcherOptions(Struct, frozen=True, kw_only=True):
    """`worker` names this process among others; `executor_limits` names every executor."""

    worker: str
    max_concurrent_tasks: int
    executor_limits: Mapping[str, int]
    lease_seconds: float
    poll_seconds: float


class Attempt(Struct, kw_only=True, eq=False):
    """An attempt that this process started. All instants are monotonic seconds.

    `grace_ends` is None unless its cancellation was asked for.
    """

    claim: Claim
    fence: Fence
    started: float
    times_out: float
    trusted_until: float
    task: asyncio.Task[Outcome]
    recording: Recording
    recorded_at: float
    grace_ends: float | None = None
    is_decided: bool = False


class Dispatcher:
    """Runs as many tasks as there are slots, until it is drained."""

    def __init__(
        self,
        store: Store,
        execution: Execution,
        options: DispatcherOptions,
        clock: Clock,
        readiness: Readiness,
    ) -> None:
        self._store = store
        self._execution = execution
        self._options = options
        self._clock = clock
        self._readiness = readiness
        self._log = structlog.get_logger().bind()  # each call of an unbound one binds it
        self._slots = Slots(options.max_concurrent_tasks, options.executor_limits)
        self._trusted_seconds = options.lease_seconds * (1 - _LEASE_MARGIN)

        self._held: dict[Fence, Attempt] = {}  # running in the store, as far as we know
        self._executing: set[Attempt] = set()  # the executor has not let go yet
        self._unsent: dict[Attempt, Outcome] = {}  # waits to be written
        self._is_behind = False  # the last try to write failed

        self._hungry: set[str] = set()  # executors that may have tasks to claim
        self._poll_at = clock.monotonic()
        self._renew_at = clock.monotonic()
        self._may_claim = asyncio.Event()
        self._may_settle = asyncio.Event()
        self._may_interrupt = asyncio.Event()
        self._may_record = asyncio.Event()
        self._recording = asyncio.Lock()
        self._cancels_heard = 0
        self._is_claiming = False
        self._is_draining = False
        self.claimed_once = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled. `drain` comes before that, or the attempts are lost."""
        end_hints = [
            self._store.on_work(self._look_everywhere),
            self._store.on_cancel(self._hear_of_cancels),
            self._store.on_watch(self._may_record.set),
        ]
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(repeat("claim", self._claim, self._readiness))
                loops.create_task(repeat("watch", self._watch, self._readiness))
                loops.create_task(repeat("renew", self._renew, self._readiness))
                loops.create_task(repeat("interrupt", self._interrupt, self._readiness))
                loops.create_task(repeat("record", self._record, self._readiness))
                loops.create_task(repeat("settle", self._settle, self._readiness))
                loops.create_task(repeat("announce", self._announce, self._readiness))
        finally:
            for end in end_hints:
                end()

    async def drain(self, seconds: float) -> None:
        """Claim nothing more, let attempts end within this time, and hand back the others.

        Returns at most 1.2 seconds later, whatever executors and store do. What could not be
        written by then is what a killed process leaves behind.
        """
        self._is_draining = True
        await self._wait_for_executors(seconds)
        for attempt in list(self._executing):
            self._stop(attempt, HandedBack(attempt.fence))
        await self._wait_for_executors(_LET_GO_SECONDS)
        await self._wait_for_writes(_LAST_WRITES_SECONDS)
        if self._executing or self._held:
            self._log.warning(
                "drain_incomplete", executing=len(self._executing), not_written=len(self._held)
            )

    # --- claim -------------------------------------------------------------------------------

    def _look_everywhere(self) -> None:
        self._hungry.update(self._options.executor_limits)
        self._may_claim.set()

    async def _claim(self) -> float:
        now = self._clock.monotonic()
        if now >= self._poll_at:
            self._poll_at = now + self._options.poll_seconds
            self._look_everywhere()
        if room := self._room():
            await self._claim_into(room, now)
        else:
            await wait_for_wake(self._may_claim, self._poll_at - now)
        return 0.0

    def _room(self) -> dict[str, int]:
        if self._is_draining or self._unsent or self._is_behind:
            return {}
        return self._slots.deal({name: self._execution.room(name) for name in self._hungry})

    async def _claim_into(self, room: Mapping[str, int], started: float) -> None:
        self._hungry -= room.keys()  # before the call: a hint that comes during it must count
        cancels_heard = self._cancels_heard
        self._is_claiming = True
        try:
            claims = await self._store.claim(
                self._options.worker, room, self._options.lease_seconds
            )
        except Exception:
            self._hungry |= room.keys()
            raise
        finally:
            self._is_claiming = False
        for claim in claims:
            self._begin(claim, started)
        given = Counter(claim.task.executor for claim in claims)
        self._hungry.update(name for name, share in room.items() if given[name] == share)
        if self._cancels_heard > cancels_heard:  # perhaps of a task that was not known here yet
            self._may_interrupt.set()
        self.claimed_once.set()

    def _begin(self, claim: Claim, claim_started: float) -> None:
        task, now = claim.task, self._clock.monotonic()
        context = copy_context()
        context.run(structlog.contextvars.bind_contextvars, task_id=task.id, attempt=task.attempt)
        recording = Recording(task, self._hear_of_piece)
        attempt = Attempt(
            claim=claim,
            fence=claim.fence,
            started=now,
            times_out=now + self._execution.seconds_for(claim),
            trusted_until=claim_started + self._trusted_seconds,
            task=asyncio.create_task(self._execution.run(claim, recording), context=context),
            recording=recording,
            recorded_at=now,
        )
        self._slots.take(task.executor)
        self._held[attempt.fence] = attempt
        self._executing.add(attempt)
        attempt.task.add_done_callback(partial(self._let_go, attempt))
        self._log.debug(
            "task_started", task_id=task.id, attempt=task.attempt, executor=task.executor
        )
        if self._is_draining:
            self._stop(attempt, HandedBack(attempt.fence))

    # --- the end of an attempt ---------------------------------------------------------------

    def _let_go(self, attempt: Attempt, task: asyncio.Task[Outcome]) -> None:
        """The executor is done with this attempt, or gave way to its cancellation."""
        self._executing.discard(attempt)
        self._slots.free(attempt.claim.task.executor)
        if self._is_open(attempt):
            self._conclude(attempt, self._outcome_of(attempt, task))
        self._may_claim.set()  # after the outcome: both may share the store's next step

    def _outcome_of(self, attempt: Attempt, task: asyncio.Task[Outcome]) -> Outcome:
        if attempt.grace_ends is not None:
            return Cancelled(attempt.fence)
        if self._clock.monotonic() >= attempt.times_out:
            return self._execution.timed_out(attempt.claim)
        broken = asyncio.CancelledError() if task.cancelled() else task.exception()
        if broken is None:
            return task.result()
        self._log.error(
            "executor_broke",
            task_id=attempt.fence.task_id,
            attempt=attempt.fence.attempt,
            error=type(broken).__name__,  # not its text, which may quote the input
            trace="".join(traceback.format_tb(broken.__traceback__)),
        )
        return self._execution.broke(attempt.claim, broken)

    def _is_open(self, attempt: Attempt) -> bool:
        """Whether the attempt is ours, and how it ends is not decided yet."""
        return not attempt.is_decided and attempt.fence in self._held

    def _conclude(self, attempt: Attempt, outcome: Outcome) -> None:
        attempt.is_decided = True
        self._unsent[attempt] = outcome
        self._may_settle.set()

    def _stop(self, attempt: Attempt, outcome: Outcome) -> None:
        """Decide from outside how the attempt ends, unless it just ended by itself."""
        if self._is_open(attempt) and attempt.task.cancel():
            self._conclude(attempt, outcome)

    def _lose(self, attempt: Attempt) -> None:
        """The attempt is, or may be, no longer ours: stop it, and write nothing."""
        if self._is_open(attempt) and attempt.task.cancel():
            del self._held[attempt.fence]
            self._log.warning(
                "lease_lost", task_id=attempt.fence.task_id, attempt=attempt.fence.attempt
            )

    def _cancel(self, attempt: Attempt) -> None:
        """Ask the executor to let go, once; the attempt is cancelled when it did."""
        if self._is_open(attempt) and attempt.grace_ends is None:
            attempt.grace_ends = self._clock.monotonic() + _CANCEL_GRACE_SECONDS
            attempt.task.cancel()

    # --- watch, interrupt and renew ----------------------------------------------------------

    async def _watch(self) -> float:
        now = self._clock.monotonic()
        for attempt in list(self._held.values()):
            self._watch_over(attempt, now)
        return _WATCH_EVERY_SECONDS

    def _watch_over(self, attempt: Attempt, now: float) -> None:
        if now >= attempt.trusted_until:
            self._lose(attempt)
        elif attempt.grace_ends is not None:
            if now >= attempt.grace_ends and self._is_open(attempt):
                self._conclude(attempt, Cancelled(attempt.fence))
        elif now >= attempt.times_out:
            self._stop(attempt, self._execution.timed_out(attempt.claim))

    def _hear_of_cancels(self) -> None:
        self._cancels_heard += 1
        self._may_interrupt.set()

    async def _interrupt(self) -> float:
        await wait_for_wake(self._may_interrupt, self._options.poll_seconds)
        if not self._held:
            return 0.0
        for fence, reason in (await self._store.interruptions(list(self._held))).items():
            attempt = self._held.get(fence)
            if attempt is not None:
                self._lose(attempt) if reason is Interruption.LOST else self._cancel(attempt)
        return 0.0

    async def _announce(self) -> float:
        await self._store.announce(
            self._options.worker, self._options.executor_limits, _ANNOUNCED_FOR_SECONDS
        )
        return _ANNOUNCE_EVERY_SECONDS

    async def _renew(self) -> float:
        started = self._clock.monotonic()
        if started < self._renew_at or not self._held:
            return min(LONGEST_WAIT_SECONDS, self._options.lease_seconds / 6)
        asked = list(self._held)
        renewed = await self._store.renew(asked, self._options.lease_seconds)
        for fence in asked:
            self._take_note(fence, fence in renewed, started)
        self._renew_at = started + self._options.lease_seconds / 3
        return 0.0

    def _take_note(self, fence: Fence, is_renewed: bool, renewal_started: float) -> None:
        attempt = self._held.get(fence)
        if attempt is None:
            return
        if is_renewed:
            attempt.trusted_until = renewal_started + self._trusted_seconds
        else:
            self._lose(attempt)

    # --- record ------------------------------------------------------------------------------

    def _hear_of_piece(self, task_id: str) -> None:
        if self._store.is_watched(task_id):
            self._may_record.set()

    async def _record(self) -> float:
        now = self._clock.monotonic()
        talking = [one for one in self._held.values() if self._has_to_say(one, now)]
        if talking:
            await self._append(talking)
        await wait_for_wake(self._may_record, _RECORD_EVERY_SECONDS)
        return 0.0

    def _has_to_say(self, attempt: Attempt, now: float) -> bool:
        recording = attempt.recording
        if recording.is_empty:
            return False
        pace = _RECORD_UNWATCHED_EVERY_SECONDS
        if self._store.is_watched(attempt.fence.task_id):
            pace = _RECORD_EVERY_SECONDS if recording.stored else 0.0
        return now >= attempt.recorded_at + max(pace, recording.stored * _SECONDS_PER_RECORDED)

    async def _append(self, attempts: Sequence[Attempt]) -> None:
        """Store what these have to say, in one call at a time: meanwhile it stays what is due."""
        async with self._recording:
            entries = [
                Entry(attempt.fence, attempt.recording.before, attempt.recording.due())
                for attempt in attempts
            ]
            appended = await self._store.append(entries)
            for attempt, is_recorded in zip(attempts, appended, strict=True):
                attempt.recording.mark_stored()
                attempt.recorded_at = self._clock.monotonic()
                if not is_recorded:
                    self._lose(attempt)

    # --- settle ------------------------------------------------------------------------------

    async def _settle(self) -> float:
        if not self._unsent:
            await wait_for_wake(self._may_settle, LONGEST_WAIT_SECONDS)
        if not self._unsent:
            return 0.0
        batch, self._unsent = self._unsent, {}
        self._may_claim.set()
        try:
            await self._record_the_rest(batch)
            await self._write(batch)
        except StoreUnavailable:
            left = {attempt: batch[attempt] for attempt in batch if attempt.fence in self._held}
            self._unsent = left | self._unsent
            self._is_behind = True
            raise
        if self._is_behind:
            self._is_behind = False
            self._may_claim.set()
        return 0.0

    async def _record_the_rest(self, attempts: Collection[Attempt]) -> None:
        """Store what is left to say, before the attempts end."""
        try:
            while talking := [one for one in attempts if not one.recording.is_empty]:
                await self._append(talking)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - what the store cannot take must not hold up the outcome
            self._log.error("events_refused", exc_info=error)

    async def _write(self, batch: Mapping[Attempt, Outcome]) -> None:
        try:
            statuses = await self._settled(list(batch.values()))
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one that the store cannot take must not hold up the others
            await self._write_apart(batch, error)
            return
        for (attempt, outcome), status in zip(batch.items(), statuses, strict=True):
            self._held.pop(attempt.fence, None)
            self._report(attempt, outcome, status)

    async def _settled(self, outcomes: Sequence[Outcome]) -> list[TaskStatus | None]:
        """As the store's `settle`, but None only where an earlier try did not write it either.

        It did where the store took the outcome, and its answer was lost.
        """
        statuses = await self._store.settle(outcomes)
        return [
            status or await self._status_if_written(outcome)
            for outcome, status in zip(outcomes, statuses, strict=True)
        ]

    async def _status_if_written(self, outcome: Outcome) -> TaskStatus | None:
        """What the task is now, if its history has this outcome of the attempt; else None.

        Where a cancel was requested, it has that instead.
        """
        task = await self._store.get(outcome.fence.task_id, None)
        if task is None:
            return None
        ends = {attempt.number: attempt.outcome for attempt in task.attempts}
        written = {ATTEMPT_OUTCOMES[type(outcome)], AttemptOutcome.CANCELLED}
        return task.status if ends.get(outcome.fence.attempt) in written else None

    async def _write_apart(self, batch: Mapping[Attempt, Outcome], error: Exception) -> None:
        if len(batch) > 1:
            for attempt, outcome in batch.items():
                await self._write({attempt: outcome})
            return
        [(attempt, outcome)] = batch.items()
        self._log.error("outcome_refused", task_id=attempt.fence.task_id, exc_info=error)
        if isinstance(outcome, Completed):
            await self._write({attempt: Failed(attempt.fence, _NOT_STORABLE)})
        else:
            del self._held[attempt.fence]  # nothing smaller is left to write

    def _report(self, attempt: Attempt, outcome: Outcome, status: TaskStatus | None) -> None:
        facts: dict[str, Any] = {
            "task_id": attempt.fence.task_id,
            "attempt": attempt.fence.attempt,
            "executor": attempt.claim.task.executor,
            "seconds": round(self._clock.monotonic() - attempt.started, 6),
        }
        match outcome:
            case _ if status is None:
                self._log.warning("late_result_refused", **facts)
            case _ if status is TaskStatus.CANCELLED:
                self._log.info("task_cancelled", **facts)
            case Completed():
                self._log.info("task_completed", **facts)
            case Retry(error=error, seconds=seconds):
                self._log.info("task_retried", error=error.code, retry_in_seconds=seconds, **facts)
            case Failed(error=error):
                self._log.warning("task_failed", error=error.code, **facts)
            case HandedBack():
                self._log.info("task_handed_back", **facts)
            case Crashed():
                self._log.warning("task_crashed", **facts)

    # --- drain -------------------------------------------------------------------------------

    async def _wait_for_executors(self, seconds: float) -> None:
        if self._executing:
            await asyncio.wait([attempt.task for attempt in self._executing], timeout=seconds)

    async def _wait_for_writes(self, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        while (self._held or self._is_claiming) and self._clock.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(_LAST_WRITES_POLL_SECONDS)
