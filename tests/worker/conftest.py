"""A worker on a clock that jumps from one event to the next, and a store that fails when told.

Time is the event loop's, and the loop never waits: with nothing left to do at this instant, it
moves on to the next timer. So a test can let hours pass, always meets the same order of events, and
a wait for something that nothing will bring about is an error at once.
"""

import asyncio
import inspect
import itertools
import selectors
from collections import Counter, defaultdict
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    MutableMapping,
)
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import structlog

from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from domain.errors import StoreUnavailable
from domain.execution import Execution
from domain.inference import Chunk, InferenceRequest, InferenceResult, Piece
from domain.ports import SubmitLimits
from domain.retention import RetentionPolicy
from domain.retry import RetryPolicy
from domain.task import ANONYMOUS, NewTask, Task
from entrypoints.metrics.page import Metrics
from entrypoints.readiness import Readiness
from entrypoints.worker.dispatcher import Dispatcher, DispatcherOptions
from entrypoints.worker.maintenance import Maintenance, MaintenanceOptions

LEASE_SECONDS = 6.0
POLL_SECONDS = 1.0


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when it has nothing to do."""

    def __init__(self) -> None:
        self._jumped = 1_000.0
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        return self._jumped

    def _jump(self, seconds: float | None) -> None:
        if seconds is None:
            raise AssertionError("everything waits, and nothing will ever happen")
        self._jumped += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events and timeout != 0:
            self._jump(timeout)
        return events


class LoopClock:
    """The clock of the running loop; its wall clock can be set."""

    def __init__(self) -> None:
        self._ahead_seconds = 1_700_000_000.0

    def now(self) -> int:
        return round((self._ahead_seconds + self.monotonic()) * 1_000_000)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def jump(self, seconds: float) -> None:
        self._ahead_seconds += seconds


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the `async def` tests of this folder on a jumping loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True


class UnsteadyStore:
    """A memory store that takes its time, and fails or hangs where a test wants it to.

    `calls` are the arguments of every call, by method. A method in `failing` raises what stands
    there instead of doing anything; one in `hanging` never answers; of one in `losing`, the next
    answer is lost.
    """

    def __init__(self, clock: LoopClock) -> None:
        self.memory = MemoryTaskStore(MemoryOptions(), clock)
        self.calls: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self.failing: dict[str, Exception] = {}
        self.hanging: set[str] = set()
        self.losing: set[str] = set()
        self.seconds: Counter[str] = Counter()  # how long a method takes, before it does anything
        self.hints = True
        self.most_running = 0

    def on_work(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self.memory.on_work(lambda: listener() if self.hints else None)

    def on_cancel(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self.memory.on_cancel(lambda: listener() if self.hints else None)

    def on_end(self, listener: Callable[[Collection[str]], None]) -> Callable[[], None]:
        return self.memory.on_end(listener)

    def on_events(self, listener: Callable[[Collection[str]], None]) -> Callable[[], None]:
        return self.memory.on_events(listener)

    def on_watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self.memory.on_watch(lambda: listener() if self.hints else None)

    def watch(self, task_ids: Collection[str]) -> None:
        self.memory.watch(task_ids)

    def is_watched(self, task_id: str) -> bool:
        return self.memory.is_watched(task_id)

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(*arguments: Any) -> Any:
            self.calls[name].append(arguments)
            await asyncio.sleep(self.seconds[name])
            if name in self.hanging:
                await asyncio.Event().wait()
            if name in self.failing:
                raise self.failing[name]
            answer = await getattr(self.memory, name)(*arguments)
            running = (await self.memory.counts()).running
            self.most_running = max(self.most_running, running)
            if name in self.losing:
                self.losing.remove(name)
                raise StoreUnavailable("its answer was lost")
            return answer

        return call


class Labourer:
    """An executor whose tasks say in their input what to do, and that keeps count of them.

    `{"seconds": 2}` works that long; `{"says": ["a", "b"]}` gives these pieces, each after
    `{"every": 0.1}` seconds; `{"raises": name}` then fails with that error of `errors`;
    `{"lets_go_after": 3}` does not give way to a cancellation for so long.
    """

    def __init__(self, **errors: BaseException) -> None:
        self._errors = errors
        self.left: int | None = None  # the room it says it has
        self.running = 0
        self.most_running = 0
        self.started: list[tuple[str, int, float]] = []
        self.cancelled: list[tuple[str, int, float]] = []
        self.at_end: Callable[[], object] = lambda: None

    def room(self) -> int | None:
        return self.left

    async def check(self) -> None:
        return None

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.started.append(self._now(request))
        says = request.input.get("says", [])
        try:
            await asyncio.sleep(request.input.get("seconds", 0))
            for piece in says:
                await asyncio.sleep(request.input.get("every", 0))
                yield Chunk(piece)
        except asyncio.CancelledError:
            self.cancelled.append(self._now(request))
            await asyncio.sleep(request.input.get("lets_go_after", 0))
            raise
        finally:
            self.running -= 1
        if "raises" in request.input:
            raise self._errors[request.input["raises"]]
        self.at_end()
        yield InferenceResult("".join(says) or "done")

    def _now(self, request: InferenceRequest) -> tuple[str, int, float]:
        return request.task_id, request.attempt, asyncio.get_running_loop().time()


class Worker:
    """A worker, its store and its executors, and the words in which tests talk about them."""

    def __init__(self, executors: dict[str, Labourer], **wanted: Any) -> None:
        self.clock = LoopClock()
        self.store = UnsteadyStore(self.clock)
        self.executors = executors
        self.readiness = Readiness(self.clock.monotonic)
        self.readiness.clear("start")
        most = wanted.get("most", 4)
        self.metrics = Metrics(self.store, self.readiness)
        self.dispatcher = Dispatcher(
            self.metrics.store,
            Execution(executors, RetryPolicy(1.0, 60.0), 1_000_000, 5, roll=lambda: 0.5),
            DispatcherOptions(
                worker="w",
                max_concurrent_tasks=most,
                executor_limits=dict.fromkeys(executors, most) | wanted.get("limits", {}),
                lease_seconds=LEASE_SECONDS,
                poll_seconds=wanted.get("poll_seconds", POLL_SECONDS),
            ),
            self.clock,
            self.readiness,
        )
        self.retention = wanted.get("retention", RetentionPolicy(0, 0))
        self.maintenance = Maintenance(
            self.metrics.store,
            MaintenanceOptions(
                retention=self.retention,
                sweep_seconds=wanted.get("sweep_seconds", 3600),
                poll_seconds=POLL_SECONDS,
                max_crashes=wanted.get("max_crashes", 5),
            ),
            self.readiness,
        )
        self._numbers = itertools.count(1)

    @property
    def executor(self) -> Labourer:
        """The only executor."""
        [executor] = self.executors.values()
        return executor

    async def submit(self, executor: str = "one", **does: Any) -> str:
        """Submit a task past the unsteady store, and give its id."""
        task_id = f"task-{next(self._numbers)}"
        new_task = NewTask(
            id=task_id,
            owner=ANONYMOUS,
            executor=executor,
            model=None,
            metadata={},
            timeout_seconds=does.pop("timeout_seconds", 10_000.0),
            max_attempts=does.pop("max_attempts", 3),
            delay_seconds=does.pop("delay_seconds", None),
            deadline_seconds=does.pop("deadline_seconds", None),
            input=msgspec.json.encode(does),
            options=b"{}",
        )
        limits = SubmitLimits(1_000_000, RetentionPolicy(0, 0))
        await self.store.memory.submit([new_task], limits)
        return task_id

    async def task(self, task_id: str) -> Task:
        task = await self.store.memory.get(task_id, ANONYMOUS)
        assert task is not None
        return task

    async def cancel(self, task_id: str) -> Task:
        """What a client does, past the unsteady store."""
        task = await self.store.memory.request_cancel(task_id, ANONYMOUS)
        assert task is not None
        return task

    async def until(self, within: float, what: Callable[[], Any]) -> float:
        """Wait until this is true, and tell how many seconds that took."""
        started = self.clock.monotonic()
        while not what():
            assert self.clock.monotonic() - started <= within, f"not within {within} seconds"
            await asyncio.sleep(0.02)
        return self.clock.monotonic() - started

    async def until_done(self, *task_ids: str, within: float = 1_000) -> list[Task]:
        rows = self.store.memory._rows
        await self.until(within, lambda: all(rows[task_id].task.done for task_id in task_ids))
        return [rows[task_id].task for task_id in task_ids]


@pytest.fixture
def at_work() -> Callable[..., Any]:
    """Open a worker whose loops run: `async with at_work(most=2) as worker`."""

    @asynccontextmanager
    async def open_worker(**wanted: Any) -> AsyncGenerator[Worker, None]:
        worker = Worker(wanted.pop("executors", None) or {"one": Labourer()}, **wanted)
        async with asyncio.TaskGroup() as group:
            loops = [worker.dispatcher.run(), worker.maintenance.run()]
            tasks = [group.create_task(loop) for loop in loops]
            yield worker
            for task in tasks:
                task.cancel()

    return open_worker


@pytest.fixture
def clock() -> LoopClock:
    return LoopClock()


@pytest.fixture
def labourer() -> type[Labourer]:
    return Labourer


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged during the test."""
    with structlog.testing.capture_logs() as lines:
        yield lines
