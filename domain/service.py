"""The use cases of clients: submit a task, look at it, ask how many there are."""

from collections.abc import Callable, Mapping

from msgspec import Struct, field

from domain.inference import Routes
from domain.ports import Accepted, QueueFull, SubmitLimits, TaskCounts, TaskStore
from domain.task import NO_METADATA, NewTask, Task


class Submission(Struct, frozen=True, kw_only=True):
    """What a client asks for. `input` and `options` are JSON text; None means the default."""

    input: bytes
    options: bytes = b"{}"
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA)
    timeout_seconds: float | None = None
    max_attempts: int | None = None


class Draining(Struct, frozen=True):
    """Nothing was stored: this process is stopping and takes no new tasks."""


class SubmitDefaults(Struct, frozen=True):
    """What holds for a task that does not say otherwise; `timeout_seconds` is also the most."""

    timeout_seconds: float
    max_attempts: int


class TaskService:
    """Tasks, as clients see them. Remembers nothing but whether it still accepts."""

    def __init__(
        self,
        store: TaskStore,
        routes: Routes,
        limits: SubmitLimits,
        defaults: SubmitDefaults,
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._routes = routes
        self._limits = limits
        self._new_id = new_id
        self._accepting = True
        self.defaults = defaults

    async def submit(self, owner: str, asked: Submission) -> Accepted | QueueFull | Draining:
        """Store a new task. When it is accepted it is committed, and will run.

        Raises `StorageFull` and `StoreUnavailable`; then nothing was stored, or all of it.
        """
        if not self._accepting:
            return Draining()
        new_task = NewTask(
            id=self._new_id(),
            owner=owner,
            executor=self._routes.executor_for(asked.model),
            model=asked.model,
            metadata=asked.metadata,
            timeout_seconds=asked.timeout_seconds or self.defaults.timeout_seconds,
            max_attempts=asked.max_attempts or self.defaults.max_attempts,
            input=asked.input,
            options=asked.options,
        )
        [answer] = await self._store.submit([new_task], self._limits)
        return answer

    async def get(self, owner: str, task_id: str) -> Task | None:
        """The task, or None: unknown, malformed and somebody else's ids look all the same."""
        return await self._store.get(task_id, owner)

    async def counts(self) -> TaskCounts:
        """How many tasks there are, of all owners."""
        return await self._store.counts()

    def stop_accepting(self) -> None:
        """From now on every submit is answered `Draining`."""
        self._accepting = False
