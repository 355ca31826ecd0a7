"""Settings become a service: which executor serves what, what is refused, and what is said."""

import asyncio

import pytest

from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from domain.ports import Accepted, SubmitLimits
from domain.retention import RetentionPolicy
from domain.service import Caller, Draining, Submission
from domain.task import ANONYMOUS, NewTask, TaskStatus
from entrypoints.bootstrap import open_service, routes_of
from settings.conversion import SettingsError
from settings.schema import (
    ExecutorSettings,
    InferenceSettings,
    Settings,
    StoreSettings,
)

CALLER = Caller(ANONYMOUS)
MEMORY = StoreSettings(backend="memory")


def settings_with(executors, store=MEMORY, **inference):
    return Settings(
        store=store,
        executors={name: ExecutorSettings(**each) for name, each in executors.items()},
        inference=InferenceSettings(**inference),
    )


ECHOES = {
    "echo": {"kind": "echo"},
    "slow": {"kind": "echo", "models": ["a", "b"], "options": {"delay_seconds": 5}},
}


async def submitted(service, model=None):
    answer = await service.tasks.submit(CALLER, Submission(input=b'"x"', model=model))
    assert isinstance(answer, Accepted)
    return answer.task


async def ended(service, task_id):
    task = await service.tasks.get(CALLER, task_id)
    if task is not None and task.done:
        return task
    await asyncio.sleep(0.01)
    return await ended(service, task_id)


async def test_an_open_service_is_ready_and_runs_tasks(clock):
    async with open_service(settings_with(ECHOES), {}, clock=clock) as service:
        assert service.readiness.faults() == {}
        task = await ended(service, (await submitted(service)).id)
    assert task.status is TaskStatus.COMPLETED
    assert task.result == b'{"output":"Processed input: x"}'


async def test_the_options_of_an_executor_are_its_own(clock):
    async with open_service(settings_with(ECHOES), {}, clock=clock) as service:
        started = clock.monotonic()
        await ended(service, (await submitted(service, model="a")).id)
    assert clock.monotonic() - started >= 4.9


async def test_an_executor_has_a_limit_of_its_own_inside_the_global_one(clock):
    executors = {
        "echo": {"kind": "echo", "max_concurrent_tasks": 2, "options": {"delay_seconds": 9}}
    }
    settings = settings_with(executors, max_concurrent_tasks=5)
    async with open_service(settings, {}, clock=clock) as service:
        for _ in range(10):
            await submitted(service)
        await asyncio.sleep(3)
        assert (await service.tasks.counts()).running == 2


async def test_a_drain_refuses_new_tasks_shows_and_hands_back(clock):
    async with open_service(settings_with(ECHOES), {}, clock=clock) as service:
        task = await submitted(service, model="a")
        await asyncio.sleep(1)
        await service.drain(0)
        assert list(service.readiness.faults()) == ["draining"]
        answer = await service.tasks.submit(CALLER, Submission(input=b'"x"'))
        assert isinstance(answer, Draining)
        now = await service.tasks.get(CALLER, task.id)
    assert now is not None
    assert (now.status, now.attempt, now.failures) == (TaskStatus.PENDING, 1, 0)


def test_models_are_served_by_the_executor_that_lists_them_and_the_rest_by_the_default():
    routes = routes_of(settings_with(ECHOES), {})
    models = {model: routes.executor_for(model) for model in ("a", "b", "c", None)}
    assert models == {"a": "slow", "b": "slow", "c": "echo", None: "echo"}


def test_a_star_serves_every_model_that_nobody_lists():
    executors = ECHOES | {"all": {"kind": "echo", "models": ["*"]}}
    routes = routes_of(settings_with(executors), {})
    assert [routes.executor_for(model) for model in ("a", "c")] == ["slow", "all"]


@pytest.mark.parametrize("model", ["a", "*"])
def test_two_executors_of_one_model_are_refused_by_key(model):
    executors = {name: {"kind": "echo", "models": [model]} for name in ("echo", "other")}
    with pytest.raises(SettingsError, match=r"executors\.other\.models .* executors\.echo\.models"):
        routes_of(settings_with(executors), {})


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (settings_with({"echo": {"kind": "ecko"}}), r"executors\.echo\.kind .*'ecko'.* echo"),
        (settings_with(ECHOES, StoreSettings(backend="sql")), r"store\.backend .*'sql'.* sqlite"),
        (settings_with(ECHOES, StoreSettings(backend="postgres")), r"store\.dsn .* empty"),
        (
            settings_with({"echo": {"kind": "echo", "options": {"delay": 1}}}),
            r"executors\.echo\.delay .*delay_seconds",
        ),
        (
            settings_with(ECHOES, StoreSettings(backend="memory", options={"size": 1})),
            r"store\.options\.size",
        ),
    ],
)
async def test_what_no_adapter_understands_is_refused_by_key(settings, key):
    with pytest.raises(SettingsError, match=key):
        async with open_service(settings, {}):
            pass


@pytest.fixture
def left_behind(clock, monkeypatch):
    """A store that services are opened over, and that is still there when they are closed."""
    store = MemoryTaskStore(MemoryOptions(), clock)
    monkeypatch.setattr("entrypoints.bootstrap.store_of", lambda *_: store)
    return store


async def test_tasks_of_an_executor_that_is_gone_are_run_by_another(clock, left_behind, logged):
    new_task = NewTask(
        id="t",
        owner=ANONYMOUS,
        executor="gone",
        model="a",
        metadata={},
        timeout_seconds=60,
        max_attempts=1,
        input=b'"x"',
        options=b"{}",
    )
    await left_behind.submit([new_task], SubmitLimits(10, RetentionPolicy(0, 0)))
    async with open_service(settings_with(ECHOES), {}, clock=clock) as service:
        task = await ended(service, "t")
    assert (task.executor, task.status) == ("slow", TaskStatus.COMPLETED)
    assert "tasks_rerouted" in [line["event"] for line in logged]


class Surprise(Exception):
    """Something that went wrong around the service."""


async def test_a_service_that_is_closed_by_an_error_hands_back_too(clock, left_behind):
    task_ids = []

    async def fail_around_it():
        async with open_service(settings_with(ECHOES), {}, clock=clock) as service:
            task_ids.append((await submitted(service, model="a")).id)
            await asyncio.sleep(1)
            raise Surprise

    with pytest.raises(ExceptionGroup) as raised:
        await fail_around_it()
    assert raised.group_contains(Surprise)
    left = await left_behind.get(task_ids[0], ANONYMOUS)
    assert left is not None
    assert (left.status, left.attempt, left.crashes) == (TaskStatus.PENDING, 1, 0)


@pytest.mark.parametrize(("kept", "warns"), [(0, False), (107, True), (108, True), (109, False)])
async def test_a_start_warns_where_live_tasks_alone_may_fill_what_is_kept(
    clock, logged, kept, warns
):
    settings = settings_with(
        ECHOES, max_pending_tasks=100, max_concurrent_tasks=8, max_tasks_count=kept
    )
    async with open_service(settings, {}, clock=clock):
        pass
    assert ("results_may_be_removed_at_once" in [line["event"] for line in logged]) is warns
