"""A backend that is down costs no task an attempt, and meets no herd when it is back."""

import asyncio
import socket

import pytest

from adapters.testing.upstream import FakeUpstream, answer
from adapters.upstream import backends
from domain.ports import Accepted
from domain.service import Caller, Submission
from domain.task import ANONYMOUS, TaskStatus
from entrypoints.bootstrap import open_service
from settings.schema import ExecutorSettings, InferenceSettings, Settings, StoreSettings

TASKS = 2_000
AT_ONCE = 64
CALLER = Caller(ANONYMOUS)


class Crowd:
    """How many requests were being answered when another came, and how many had been."""

    def __init__(self):
        self.seen = []
        self._running = 0
        self._answered = 0

    async def answer(self, exchange):
        self._running += 1
        self.seen.append((self._running, self._answered))
        await asyncio.sleep(0.01)
        await answer(exchange)
        self._running -= 1
        self._answered += 1


def settings_for(port):
    options = {"base_url": f"http://127.0.0.1:{port}/v1"}
    backend = ExecutorSettings(kind="openai_compatible", models=["*"], options=options)
    return Settings(
        store=StoreSettings(backend="memory"),
        executors={"backend": backend},
        inference=InferenceSettings(default_executor="backend", max_concurrent_tasks=AT_ONCE),
    )


async def submit_all(service):
    tasks = []
    for number in range(TASKS):
        submission = Submission(input=b'"hello"', model="crowded", max_attempts=1)
        accepted = await service.tasks.submit(CALLER, submission)
        assert isinstance(accepted, Accepted), number
        tasks.append(accepted.task.id)
    return tasks


async def all_ended(service, ids, within):
    async with asyncio.timeout(within):
        for task_id in ids:
            while not (task := await service.tasks.get(CALLER, task_id)).done:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert (task.status, task.failures) == (TaskStatus.COMPLETED, 0), task.error


@pytest.mark.parametrize(
    ("down_seconds", "probe_every_seconds"),
    [(2, 0.5), pytest.param(60, 5, marks=[pytest.mark.torture])],
)
def test_two_thousand_tasks_wait_and_then_all_complete_at_their_only_attempt(
    monkeypatch, down_seconds, probe_every_seconds
):
    monkeypatch.setattr(backends, "PROBE_EVERY_SECONDS", probe_every_seconds)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def scene():
        crowd = Crowd()
        async with open_service(settings_for(port), {}) as service:
            ids = await submit_all(service)
            await asyncio.sleep(down_seconds)
            assert (await service.tasks.counts()).running == 0
            async with FakeUpstream({"crowded": crowd.answer}, port):
                await all_ended(service, ids, within=60)
        return crowd.seen

    seen = asyncio.run(scene())
    assert len(seen) == TASKS
    on_the_ramp = [(running, answered) for running, answered in seen if answered < 6]
    assert all(running <= 2**answered for running, answered in on_the_ramp), on_the_ramp
