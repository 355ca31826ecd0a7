"""The scene of a store's tests: an open store, its clock, and the steps most of them begin with."""

import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from msgspec.structs import replace

from adapters.testing.fakes import FakeClock
from domain.inference import Usage
from domain.ports import (
    Accepted,
    Cancelled,
    Claim,
    Completed,
    Failed,
    Fence,
    HandedBack,
    Outcome,
    Reclaimed,
    Retry,
    Store,
    SubmitLimits,
)
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, TRANSITIONS, Move, NewTask, Task, TaskError, TaskStatus

HOUR: Final = 3600.0
PATIENCE: Final = 10.0
"""Real seconds to wait for what should come at once."""
LEASE: Final = 30.0
DEADLINE_SECONDS: Final = 1_000.0
RETRY_SECONDS: Final = 7.5
WORKER: Final = "worker-1"
RESULT: Final = b'{"output":"Processed input: hello"}'
USAGE: Final = Usage(input_tokens=3, output_tokens=5, total_tokens=8)
ERROR: Final = TaskError("upstream_rejected", "the backend said nö", retryable=False)
BUSY: Final = TaskError("executor_unavailable", "no connection", retryable=True)
KEEP_ALL: Final = RetentionPolicy(retention_seconds=0, max_tasks=0)
NO_LIMITS: Final = SubmitLimits(max_pending=1_000_000, retention=KEEP_ALL)

JSON_TEXTS: Final = {
    "empty string": b'""',
    "U+0000 in a string": b'"a\\u0000b"',
    "U+0000 in a key": b'{"\\u0000":"\\u0000"}',
    "unicode": '"这是一个测试输入 😀 é"'.encode(),
    "escaped surrogates": b'"\\ud83d\\ude00"',
    "white space": b'{ "a" :\t[ 1 , 2 ]\n}',
    "same key twice": b'{"a":1,"a":2}',
    "exact numbers": b"[1.50,-0.0,1e300,9007199254740993,-9223372036854775808]",
    "depth 64": b"[" * 64 + b"]" * 64,
    "a megabyte": b'"' + b"x" * 1_048_574 + b'"',
}

# --- a move of TRANSITIONS, as calls to a store, and as what the domain says of it ---------------

OUTCOMES: Final[Mapping[Move, Callable[[Fence], Outcome]]] = {
    Move.COMPLETE: lambda fence: Completed(fence, RESULT, USAGE),
    Move.FAIL: lambda fence: Failed(fence, ERROR),
    Move.RETRY: lambda fence: Retry(fence, BUSY, RETRY_SECONDS),
    Move.HAND_BACK: HandedBack,
    Move.CANCEL: Cancelled,
}
MAX_CRASHES: Final = {Move.LOSE_WORKER: 1, Move.GIVE_UP: 0}
MOVED: Final[Mapping[Move, Callable[[Task, int], Task]]] = {
    Move.CLAIM: lambda task, now: task.claimed(now),
    Move.COMPLETE: lambda task, now: task.completed(now, RESULT, USAGE),
    Move.FAIL: lambda task, now: task.failed(now, ERROR),
    Move.RETRY: lambda task, now: task.retried(now, RETRY_SECONDS, BUSY),
    Move.HAND_BACK: lambda task, now: task.handed_back(now),
    Move.LOSE_WORKER: lambda task, now: task.worker_vanished(now, MAX_CRASHES[Move.LOSE_WORKER]),
    Move.GIVE_UP: lambda task, now: task.worker_vanished(now, MAX_CRASHES[Move.GIVE_UP]),
    Move.CANCEL: lambda task, now: task.cancelled(now),
    Move.EXPIRE: lambda task, now: task.expired(now),
}
WAY_TO: Final = {
    TaskStatus.PENDING: Move.HAND_BACK,
    TaskStatus.COMPLETED: Move.COMPLETE,
    TaskStatus.FAILED: Move.FAIL,
    TaskStatus.CANCELLED: Move.CANCEL,
}
REACHABLE: Final = sorted({TaskStatus.PENDING, *TRANSITIONS.values()})

_numbers = count(1)


def new_task(**changes: Any) -> NewTask:
    """A small task with an id of its own; the ids do not sort in the order of their making."""
    task = NewTask(
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, str(next(_numbers)))),
        owner=ANONYMOUS,
        executor="echo",
        model=None,
        metadata={},
        timeout_seconds=300.0,
        max_attempts=3,
        input=b'"hello"',
        options=b"{}",
    )
    return replace(task, **changes)


def ids(found: list[Claim] | list[Task]) -> list[str]:
    """The ids of these tasks or claims, in their order."""
    return [item.task.id if isinstance(item, Claim) else item.id for item in found]


OpenStore = Callable[[Path, FakeClock], AbstractAsyncContextManager[Store]]


class Case:
    """An open store and its clock, and the few steps that most tests begin with."""

    store: Store

    def __init__(self, open_store: OpenStore, place: Path) -> None:
        self.clock = FakeClock()
        self._open_store = open_store
        self._places = (place / str(number) for number in count())
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._place = next(self._places)
        self._place.mkdir(parents=True)
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def reopen(self) -> None:
        """Close the store in good order, and open it anew."""
        await self._stack.aclose()
        await self._open()

    async def crash(self) -> None:
        """Open what is there at this moment, without the store having been closed before.

        A store that keeps its files in its place is opened on a copy of them, which is what a
        killed process leaves behind.
        """
        left_behind, self._place = self._place, next(self._places)
        shutil.copytree(left_behind, self._place)
        await self._stack.aclose()
        await self._open()

    async def _open(self) -> None:
        opened = self._open_store(self._place, self.clock)
        self.store = await self._stack.enter_async_context(opened)

    async def submit(self, *new_tasks: NewTask) -> list[Task]:
        """Submit these without limits (one of the usual kind, if none are given)."""
        answers = await self.store.submit(new_tasks or [new_task()], NO_LIMITS)
        return [answer.task for answer in answers if isinstance(answer, Accepted)]

    async def claim(self, room: int = 1, executor: str = "echo") -> list[Claim]:
        """Claim for one executor, under the usual lease."""
        return await self.store.claim(WORKER, {executor: room}, LEASE)

    async def start(self, *new_tasks: NewTask) -> list[Claim]:
        """Submit these (or one), and claim as many."""
        return await self.claim(len(await self.submit(*new_tasks)))

    async def finish(self, *new_tasks: NewTask) -> list[Task]:
        """Submit these (or one), claim them, complete them in this order, and give them back."""
        claims = await self.start(*new_tasks)
        await self.store.settle([Completed(claim.fence, RESULT, USAGE) for claim in claims])
        return [await self.task(claim.task.id) for claim in claims]

    async def settle(self, outcome: Outcome) -> TaskStatus | None:
        """Settle one attempt."""
        [status] = await self.store.settle([outcome])
        return status

    async def lose(self, max_crashes: int = 1_000) -> list[Reclaimed]:
        """Let every lease run out, and reclaim."""
        self.clock.advance(LEASE + 1)
        return await self.store.reclaim(max_crashes, limit=1_000)

    async def task(self, task_id: str) -> Task:
        """The task, which must be there."""
        found = await self.store.get(task_id, ANONYMOUS)
        assert found is not None, f"task {task_id} is gone"
        return found

    async def in_status(self, status: TaskStatus) -> tuple[Task, Fence]:
        """A task with a deadline in this status, and the fence of its first and latest attempt."""
        [claim] = await self.start(new_task(deadline_seconds=DEADLINE_SECONDS))
        if status is not TaskStatus.RUNNING:
            await self.settle(OUTCOMES[WAY_TO[status]](claim.fence))
        return await self.task(claim.task.id), claim.fence

    async def move(self, move: Move, fence: Fence) -> bool:
        """Try this move on the task of the fence; whether the store says that it took effect."""
        if move in OUTCOMES and await self.settle(OUTCOMES[move](fence)) is not None:
            return True
        if move is Move.CANCEL:
            return await self.cancel(fence.task_id)
        if move is Move.EXPIRE:
            self.clock.advance(DEADLINE_SECONDS)
            return bool(await self.store.expire(limit=1_000))
        if move in MAX_CRASHES:
            return bool(await self.lose(MAX_CRASHES[move]))
        return move is Move.CLAIM and bool(await self.claim())

    async def cancel(self, task_id: str) -> bool:
        """Request that this task be cancelled; whether that changed it."""
        before = await self.task(task_id)
        return await self.store.request_cancel(task_id, ANONYMOUS) != before
