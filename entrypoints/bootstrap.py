"""The composition root: settings become a running service. Only this module names adapters."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Final, TypeVar

import structlog
from msgspec.structs import asdict, replace
from uuid_utils import uuid7

from adapters.clock import SystemClock
from adapters.registry import UnknownAdapter, executor_factory, store_factory
from adapters.registry import executor_kinds as executor_kinds  # shown by the command line
from domain.errors import ExecutorError, ExecutorUnusable
from domain.execution import Execution
from domain.inference import Routes
from domain.ports import Clock, Executor, Store, SubmitLimits
from domain.retention import RetentionPolicy
from domain.retry import RetryPolicy
from domain.service import SubmitDefaults, TaskService
from entrypoints.http.lookout import Lookout
from entrypoints.metrics.page import Metrics
from entrypoints.readiness import Readiness
from entrypoints.worker.dispatcher import Dispatcher, DispatcherOptions
from entrypoints.worker.loop import repeat
from entrypoints.worker.maintenance import Maintenance, MaintenanceOptions
from settings.conversion import SettingsError, Sources, convert, source_of
from settings.schema import ExecutorSettings, InferenceSettings, Settings, StoreSettings

EVERY_MODEL: Final = "*"
_LAST_LOOKS_SECONDS: Final = 1.0  # at their tasks, for those who wait
_SYSTEM_CLOCK: Final = SystemClock()
_SECONDS_PER_HOUR: Final = 3600
_EXAMINE_SECONDS: Final = 10.0

Factory = TypeVar("Factory")

log = structlog.get_logger()


class Service:
    """What the edge needs of a running service, and how to stop it."""

    def __init__(
        self,
        tasks: TaskService,
        lookout: Lookout,
        readiness: Readiness,
        metrics: Metrics,
        dispatcher: Dispatcher | None,
    ) -> None:
        """`dispatcher` None: the tasks are left to other processes."""
        self.tasks = tasks
        self.lookout = lookout
        self.readiness = readiness
        self.metrics = metrics
        self._dispatcher = dispatcher

    async def drain(self, seconds: float) -> None:
        """Take no new tasks, let the running ones end within this time, hand the others back.

        Reads go on working, and whoever waited for a task is answered before this returns. That is
        at most 1.2 seconds after the time given.
        """
        self.readiness.fault("draining", "the service is stopping")
        self.tasks.stop_accepting()
        self.lookout.release()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._answer_all(seconds))
            if self._dispatcher is not None:
                group.create_task(self._dispatcher.drain(seconds))

    async def _answer_all(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds + _LAST_LOOKS_SECONDS):
                await self.lookout.all_left()


@asynccontextmanager
async def open_service(
    settings: Settings, sources: Sources, *, clock: Clock = _SYSTEM_CLOCK
) -> AsyncIterator[Service]:
    """A service whose worker claims. What still runs when it is closed is handed back.

    Raises `SettingsError`, and then leaves nothing open; and `StoreUnusable`.
    """
    routes = routes_of(settings, sources)
    executors_to_open = _executors(settings, sources)
    store_to_open = store_of(settings.store, sources, clock)
    async with AsyncExitStack() as stack:
        readiness = Readiness(clock.monotonic)
        metrics = Metrics(await stack.enter_async_context(store_to_open), readiness)
        store = metrics.store
        executors = {
            name: await _opened(executor, f"executors.{name}", sources, stack)
            for name, executor in executors_to_open.items()
        }
        if not is_shared(settings.store, sources):
            await _reroute(store, executors, routes)
        execution = _execution(settings, executors)
        dispatcher = Dispatcher(store, execution, _dispatching(settings), clock, readiness)
        tasks = _tasks(settings.inference, store, routes)
        async with (
            _kept_in_order(store, settings, readiness),
            looking_out(store, settings, readiness) as lookout,
            _at_work(dispatcher),
        ):
            readiness.clear("start")
            yield Service(tasks, lookout, readiness, metrics, dispatcher)


@asynccontextmanager
async def open_api(
    settings: Settings, sources: Sources, *, clock: Clock = _SYSTEM_CLOCK
) -> AsyncIterator[Service]:
    """A service that accepts tasks, and leaves them to the workers of other processes.

    Raises `SettingsError` and `StoreUnusable`.
    """
    routes = routes_of(settings, sources)
    if not is_shared(settings.store, sources):
        log.warning(
            "no_worker", reason="no other process can open this store", store=settings.store.backend
        )
    async with store_of(settings.store, sources, clock) as opened:
        readiness = Readiness(clock.monotonic)
        metrics = Metrics(opened, readiness)
        store = metrics.store
        tasks = _tasks(settings.inference, store, routes)
        async with (
            _kept_in_order(store, settings, readiness),
            looking_out(store, settings, readiness) as lookout,
        ):
            readiness.clear("start")
            yield Service(tasks, lookout, readiness, metrics, None)


def open_worker(
    settings: Settings, sources: Sources, *, clock: Clock = _SYSTEM_CLOCK
) -> AbstractAsyncContextManager[Service]:
    """A service for tasks that other processes accept.

    Raises `SettingsError`, also where the store is not one that processes share.
    """
    if not is_shared(settings.store, sources):
        key = "store.backend"
        raise SettingsError(
            f"{key} (from {source_of(key, sources)}) is {settings.store.backend!r}, which one"
            " process owns: `task-agent serve` runs its tasks; allowed for a worker of its own:"
            " a store that processes share, such as postgres"
        )
    return open_service(settings, sources, clock=clock)


async def migrate_store(settings: Settings, sources: Sources) -> None:
    """Bring the store's schema up to date. Raises `SettingsError` and `StoreUnusable`."""
    migrating = replace(settings.store, migrate_on_start=True)
    async with store_of(migrating, sources, _SYSTEM_CLOCK):
        return


async def examine_executors(settings: Settings, sources: Sources) -> dict[str, str | None]:
    """What is wrong with each executor now, by its name; None: it would take an attempt.

    Each is opened and really asked, all at the same time, within ten seconds. Raises
    `SettingsError`.
    """
    executors = _executors(settings, sources)
    faults = await asyncio.gather(*(_fault_of(executor) for executor in executors.values()))
    return dict(zip(executors, faults, strict=True))


async def _fault_of(executor_to_open: AbstractAsyncContextManager[Executor]) -> str | None:
    try:
        async with asyncio.timeout(_EXAMINE_SECONDS), executor_to_open as executor:
            await executor.check()
    except ExecutorError as error:
        return error.message
    except ExecutorUnusable as error:
        return f"{error.option} {error}"
    except TimeoutError:
        return f"no answer within {_EXAMINE_SECONDS:g} seconds"
    except Exception as error:  # noqa: BLE001 - a plug-in may fail in any way, and the others count
        return f"{type(error).__name__} in the executor"  # its text may have a secret
    return None


@asynccontextmanager
async def _kept_in_order(
    store: Store, settings: Settings, readiness: Readiness
) -> AsyncIterator[None]:
    _warn_of_early_removal(settings.inference)
    async with asyncio.TaskGroup() as group:
        maintenance = group.create_task(Maintenance(store, _maintaining(settings), readiness).run())
        yield
        maintenance.cancel()


@asynccontextmanager
async def looking_out(
    store: Store, settings: Settings, readiness: Readiness
) -> AsyncIterator[Lookout]:
    """What wakes those who wait for something to happen to tasks."""
    lookout = Lookout(store, settings.worker.poll_seconds)
    stop_hints = [store.on_end(lookout.tell_end), store.on_events(lookout.tell_events)]
    loops = {"lookout": lookout.poll, "watching": lookout.keep_watching}
    try:
        async with asyncio.TaskGroup() as group:
            looking = [
                group.create_task(repeat(name, one_round, readiness))
                for name, one_round in loops.items()
            ]
            yield lookout
            for task in looking:
                task.cancel()
    finally:
        for stop in stop_hints:
            stop()


@asynccontextmanager
async def _at_work(dispatcher: Dispatcher) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        working = group.create_task(dispatcher.run())
        try:
            await dispatcher.claimed_once.wait()
            yield
        finally:
            await dispatcher.drain(0)
            working.cancel()


# --- adapters --------------------------------------------------------------------------------


def store_of(
    settings: StoreSettings, sources: Sources, clock: Clock
) -> AbstractAsyncContextManager[Store]:
    """The store that the settings name, not open yet. Raises `SettingsError`."""
    factory = _known(store_factory, settings.backend, "store.backend", sources)
    names = factory.options_type.__struct_fields__
    shared = {name: value for name, value in asdict(settings).items() if name in names}
    is_known = len(shared) == len(names) and not settings.options
    section = "store" if is_known else "store.options"
    options = convert(shared | settings.options, factory.options_type, section, sources)
    return factory(options, clock)


def is_shared(settings: StoreSettings, sources: Sources) -> bool:
    """Whether other processes may have this store open too. Raises `SettingsError`."""
    return _known(store_factory, settings.backend, "store.backend", sources).is_shared


def _executors(
    settings: Settings, sources: Sources
) -> dict[str, AbstractAsyncContextManager[Executor]]:
    return {
        name: _executor(executor, f"executors.{name}", sources)
        for name, executor in settings.executors.items()
    }


def _executor(
    settings: ExecutorSettings, key: str, sources: Sources
) -> AbstractAsyncContextManager[Executor]:
    factory = _known(executor_factory, settings.kind, f"{key}.kind", sources)
    return factory(convert(settings.options, factory.options_type, key, sources))


async def _opened(
    executor: AbstractAsyncContextManager[Executor],
    key: str,
    sources: Sources,
    stack: AsyncExitStack,
) -> Executor:
    try:
        return await stack.enter_async_context(executor)
    except ExecutorUnusable as error:
        key = f"{key}.{error.option}"
        raise SettingsError(f"{key} (from {source_of(key, sources)}): {error}") from error


def _known(find: Callable[[str], Factory], name: str, key: str, sources: Sources) -> Factory:
    try:
        return find(name)
    except UnknownAdapter as error:
        raise SettingsError(f"{key} (from {source_of(key, sources)}): {error}") from error


# --- what the settings mean to the domain and the worker ---------------------------------------


def routes_of(settings: Settings, sources: Sources) -> Routes:
    """Which executor serves which model. Raises `SettingsError` where two list the same one."""
    owners: dict[str, str] = {}
    for name, executor in settings.executors.items():
        for model in executor.models:
            other = owners.setdefault(model, name)
            if other != name:
                key = f"executors.{name}.models"
                raise SettingsError(
                    f"{key} (from {source_of(key, sources)}) lists {model[:100]!r}, as does"
                    f" executors.{other}.models; allowed: each model in one executor"
                )
    fallback = owners.pop(EVERY_MODEL, settings.inference.default_executor)
    return Routes(owners, fallback)


async def _reroute(store: Store, executors: Collection[str], routes: Routes) -> None:
    moved = await store.reroute(executors, routes)
    if moved:
        log.warning("tasks_rerouted", count=moved, reason="their executor is not configured")


def _retention(inference: InferenceSettings) -> RetentionPolicy:
    return RetentionPolicy(
        inference.task_retention_hours * _SECONDS_PER_HOUR, inference.max_tasks_count
    )


def _warn_of_early_removal(inference: InferenceSettings) -> None:
    live = inference.max_pending_tasks + inference.max_concurrent_tasks
    if 0 < inference.max_tasks_count <= live:
        log.warning(
            "results_may_be_removed_at_once",
            reason="inference.max_pending_tasks and max_concurrent_tasks reach max_tasks_count",
            max_tasks_count=inference.max_tasks_count,
            most_live_tasks=live,
        )


def _tasks(inference: InferenceSettings, store: Store, routes: Routes) -> TaskService:
    return TaskService(
        store,
        routes,
        SubmitLimits(inference.max_pending_tasks, _retention(inference)),
        SubmitDefaults(
            inference.timeout_seconds, inference.max_attempts, inference.priority_step_seconds
        ),
        new_id=lambda: str(uuid7()),
    )


def _execution(settings: Settings, executors: Mapping[str, Executor]) -> Execution:
    inference = settings.inference
    return Execution(
        executors,
        RetryPolicy(inference.retry_base_seconds, inference.retry_max_seconds),
        inference.max_result_bytes,
        settings.worker.max_crashes,
        roll=random.random,
    )


def _dispatching(settings: Settings) -> DispatcherOptions:
    most = settings.inference.max_concurrent_tasks
    return DispatcherOptions(
        worker=f"{socket.gethostname()}-{os.getpid()}-{uuid7().hex[-8:]}",
        max_concurrent_tasks=most,
        executor_limits={
            name: min(most, executor.max_concurrent_tasks or most)
            for name, executor in settings.executors.items()
        },
        lease_seconds=settings.worker.lease_seconds,
        poll_seconds=settings.worker.poll_seconds,
    )


def _maintaining(settings: Settings) -> MaintenanceOptions:
    return MaintenanceOptions(
        retention=_retention(settings.inference),
        sweep_seconds=settings.retention.sweep_seconds,
        poll_seconds=settings.worker.poll_seconds,
        max_crashes=settings.worker.max_crashes,
    )
