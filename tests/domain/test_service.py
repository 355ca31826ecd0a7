"""What clients ask of the service, over a real store: the memory one."""

import asyncio
from itertools import count
from typing import cast

import pytest

from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import KEEP_ALL
from domain.inference import Routes
from domain.ports import Accepted, QueueFull, SubmitLimits, TaskCounts
from domain.service import Draining, Submission, SubmitDefaults, TaskService
from domain.task import Task, TaskStatus


@pytest.fixture
def service() -> TaskService:
    numbers = count(1)
    return TaskService(
        MemoryTaskStore(MemoryOptions(), FakeClock()),
        Routes({"m": "llama"}, fallback="echo"),
        SubmitLimits(max_pending=2, retention=KEEP_ALL),
        SubmitDefaults(timeout_seconds=300, max_attempts=3),
        new_id=lambda: f"task-{next(numbers)}",
    )


def submit(service: TaskService, asked: Submission, owner: str = "alice") -> Task:
    return cast("Accepted", asyncio.run(service.submit(owner, asked))).task


def test_a_submission_becomes_a_pending_task_with_the_defaults(service: TaskService) -> None:
    task = submit(service, Submission(input=b'"hi"'))
    assert (task.id, task.owner, task.status) == ("task-1", "alice", TaskStatus.PENDING)
    assert (task.executor, task.model, task.metadata) == ("echo", None, {})
    assert (task.timeout_seconds, task.max_attempts) == (300, 3)


def test_what_the_client_asks_for_comes_before_the_defaults(service: TaskService) -> None:
    asked = Submission(
        input=b'"hi"', model="m", metadata={"a": "b"}, timeout_seconds=0.5, max_attempts=1
    )
    task = submit(service, asked)
    assert (task.executor, task.model, task.metadata) == ("llama", "m", {"a": "b"})
    assert (task.timeout_seconds, task.max_attempts) == (0.5, 1)


def test_a_task_is_shown_to_its_owner_only(service: TaskService) -> None:
    task = submit(service, Submission(input=b'"hi"'))
    assert asyncio.run(service.get("alice", task.id)) == task
    assert asyncio.run(service.get("bob", task.id)) is None
    assert asyncio.run(service.get("alice", "no such id")) is None


def test_counts_are_those_of_all_owners(service: TaskService) -> None:
    submit(service, Submission(input=b'"hi"'), owner="alice")
    submit(service, Submission(input=b'"hi"'), owner="bob")
    assert asyncio.run(service.counts()) == TaskCounts(pending=2)


def test_beyond_max_pending_a_submission_is_answered_queue_full(service: TaskService) -> None:
    for _ in range(2):
        submit(service, Submission(input=b'"hi"'))
    answer = asyncio.run(service.submit("alice", Submission(input=b'"hi"')))
    assert answer == QueueFull(pending=2)


def test_a_service_that_stops_takes_nothing_new_and_still_answers(service: TaskService) -> None:
    task = submit(service, Submission(input=b'"hi"'))
    service.stop_accepting()
    answer = asyncio.run(service.submit("alice", Submission(input=b'"hi"')))
    assert answer == Draining()
    assert asyncio.run(service.counts()) == TaskCounts(pending=1)
    assert asyncio.run(service.get("alice", task.id)) == task
