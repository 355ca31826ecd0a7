"""What clients ask of the service, over a real store: the memory one."""

import asyncio
from collections.abc import Coroutine
from itertools import count
from typing import Any, TypeVar

import pytest

from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import BUSY, ERROR, LEASE
from domain.inference import Routes
from domain.instants import after
from domain.ports import (
    Accepted,
    Completed,
    Failed,
    Mismatch,
    Payload,
    QueueFull,
    QueueLine,
    Replayed,
    Retry,
    SubmitLimits,
    TaskCounts,
)
from domain.query import TaskQuery
from domain.retention import RetentionPolicy
from domain.service import (
    Caller,
    Draining,
    NotRetryable,
    Submission,
    SubmitDefaults,
    TaskService,
)
from domain.task import Idempotency, Task, TaskStatus

T = TypeVar("T")

ALICE, BOB = Caller("alice"), Caller("bob")
ADMIN = Caller("root", is_admin=True)
HELLO = Submission(input=b'"hi"')


class Scene:
    """The service, its store and its clock."""

    def __init__(self) -> None:
        numbers = count(1)
        self.clock = FakeClock()
        self.store = MemoryTaskStore(MemoryOptions(), self.clock)
        self.service = TaskService(
            self.store,
            Routes({"m": "llama"}, fallback="echo"),
            SubmitLimits(max_pending=3, retention=RetentionPolicy(60, max_tasks=0)),
            SubmitDefaults(timeout_seconds=300, max_attempts=3, priority_step_seconds=60),
            new_id=lambda: f"task-{next(numbers)}",
        )

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(call)

    def submit(self, asked: Submission = HELLO, caller: Caller = ALICE) -> Task:
        answer = self.run(self.service.submit(caller, asked))
        assert isinstance(answer, Accepted)
        return answer.task

    def get(self, task: Task) -> Task:
        found = self.run(self.service.get(ADMIN, task.id))
        assert found is not None
        return found

    def fail(self, asked: Submission = HELLO, caller: Caller = ALICE) -> Task:
        """Submit this, and let it fail for good."""
        task = self.submit(asked, caller)
        [claim] = self.run(self.store.claim("worker", {task.executor: 1}, LEASE))
        self.run(self.store.settle([Failed(claim.fence, ERROR)]))
        return self.get(task)

    def retry(self, task: Task, caller: Caller = ALICE) -> Task:
        """Try this one again, which must be possible."""
        answer = self.run(self.service.retry(caller, task.id))
        assert isinstance(answer, Accepted)
        return answer.task


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- submit ------------------------------------------------------------------------------------


def test_a_submission_becomes_a_pending_task_with_the_defaults(scene: Scene) -> None:
    task = scene.submit()
    assert (task.id, task.owner, task.status) == ("task-1", "alice", TaskStatus.PENDING)
    assert (task.executor, task.model, task.metadata) == ("echo", None, {})
    assert (task.timeout_seconds, task.max_attempts, task.priority) == (300, 3, 0)
    assert (task.not_before, task.deadline, task.retry_of) == (None, None, None)
    assert task.due_at == task.rank == scene.clock.now()


def test_what_the_client_asks_for_comes_before_the_defaults(scene: Scene) -> None:
    asked = Submission(
        input=b'"hi"',
        model="m",
        metadata={"a": "b"},
        timeout_seconds=0.5,
        max_attempts=1,
        priority=-2,
        delay_seconds=5,
        deadline_seconds=9,
    )
    task, now = scene.submit(asked), scene.clock.now()
    assert (task.executor, task.model, task.metadata) == ("llama", "m", {"a": "b"})
    assert (task.timeout_seconds, task.max_attempts, task.priority) == (0.5, 1, -2)
    assert (task.not_before, task.deadline) == (after(now, 5), after(now, 9))


def batch(*texts: bytes, key: str = "k", fingerprint: bytes = b"f") -> list[Submission]:
    """Submissions of these inputs, under keys of one fingerprint."""
    return [
        Submission(input=text, idempotency=Idempotency(f"{key} {number}", fingerprint))
        for number, text in enumerate(texts)
    ]


def test_a_batch_is_answered_in_order_and_again_by_what_came_of_it(scene: Scene) -> None:
    asked = batch(b'"one"', b'"two"')
    answers = scene.run(scene.service.submit_batch(ALICE, asked))
    assert isinstance(answers, list)
    tasks = [answer.task for answer in answers if isinstance(answer, Accepted)]
    assert [task.id for task in tasks] == ["task-1", "task-2"]
    again = scene.run(scene.service.submit_batch(ALICE, asked))
    assert again == [Replayed(task) for task in tasks]


def test_a_changed_batch_stores_nothing_also_not_what_its_keys_are_free_for(scene: Scene) -> None:
    scene.run(scene.service.submit_batch(ALICE, batch(b'"one"')))
    longer = batch(b'"one"', b'"two"', fingerprint=b"another")
    assert scene.run(scene.service.submit_batch(ALICE, longer)) == Mismatch()
    assert scene.run(scene.service.counts()).total == 1


def test_a_changed_batch_removes_nothing_to_make_room(scene: Scene) -> None:
    scene.run(scene.service.submit_batch(ALICE, batch(b'"one"')))
    finished = scene.fail()
    scene.service.limits = SubmitLimits(9, RetentionPolicy(0, max_tasks=1))
    changed = batch(b'"two"', fingerprint=b"another")
    assert scene.run(scene.service.submit_batch(ALICE, changed)) == Mismatch()
    assert scene.get(finished) == finished


def test_who_is_stopping_takes_no_batch(scene: Scene) -> None:
    scene.service.stop_accepting()
    assert scene.run(scene.service.submit_batch(ALICE, [HELLO])) == Draining()
    assert scene.run(scene.service.counts()).total == 0


def test_a_task_may_ask_for_a_moment(scene: Scene) -> None:
    moment = after(scene.clock.now(), 60)
    task = scene.submit(Submission(input=b'"hi"', run_at=moment))
    assert task.not_before == task.due_at == moment


def test_a_step_of_priority_is_worth_its_seconds_of_waiting(scene: Scene) -> None:
    task = scene.submit(Submission(input=b'"hi"', priority=10))
    assert task.due_at - task.rank == 600_000_000


def test_a_key_makes_a_repetition_of_the_second_submission(scene: Scene) -> None:
    first = Submission(input=b'"hi"', idempotency=Idempotency("key", b"one"))
    other = Submission(input=b'"ho"', idempotency=Idempotency("key", b"other"))
    task = scene.submit(first)
    assert scene.run(scene.service.submit(ALICE, first)) == Replayed(task)
    assert scene.run(scene.service.submit(ALICE, other)) == Mismatch()
    assert scene.submit(other, BOB).owner == "bob"


def test_beyond_max_pending_a_submission_is_answered_queue_full(scene: Scene) -> None:
    for _ in range(3):
        scene.submit()
    assert scene.run(scene.service.submit(ALICE, HELLO)) == QueueFull(pending=3)


def test_a_service_that_stops_takes_nothing_new_and_still_answers(scene: Scene) -> None:
    task = scene.fail()
    scene.service.stop_accepting()
    assert scene.run(scene.service.submit(ALICE, HELLO)) == Draining()
    assert scene.run(scene.service.retry(ALICE, task.id)) == Draining()
    assert scene.run(scene.service.counts()) == TaskCounts(failed=1)
    assert scene.run(scene.service.get(ALICE, task.id)) == task


# --- who sees what -----------------------------------------------------------------------------


def test_a_task_is_shown_to_its_owner_and_to_admins_only(scene: Scene) -> None:
    task = scene.submit()
    assert scene.run(scene.service.get(ALICE, task.id)) == task
    assert scene.run(scene.service.get(ADMIN, task.id)) == task
    assert scene.run(scene.service.get(BOB, task.id)) is None
    assert scene.run(scene.service.get(ALICE, "no such id")) is None


def test_a_task_is_ended_by_its_owner_and_by_admins_only(scene: Scene) -> None:
    mine, other = scene.fail(), scene.submit()
    assert scene.run(scene.service.cancel(BOB, other.id)) is None
    assert scene.run(scene.service.retry(BOB, mine.id)) is None
    assert not scene.run(scene.service.delete(BOB, other.id))
    assert scene.get(other) == other
    assert scene.run(scene.service.cancel(ADMIN, other.id)) == other.cancelled(scene.clock.now())
    assert scene.run(scene.service.delete(ALICE, other.id))
    assert scene.run(scene.service.get(ADMIN, other.id)) is None


def test_the_queue_is_that_of_the_tasks_a_caller_sees(scene: Scene) -> None:
    scene.submit(caller=ALICE)
    scene.submit(caller=BOB)
    seen = [scene.run(scene.service.queue(caller)).lines for caller in (ALICE, ADMIN)]
    assert seen == [[QueueLine("echo", None, pending, running=0)] for pending in (1, 2)]


def test_counts_are_those_of_all_owners(scene: Scene) -> None:
    scene.submit(caller=ALICE)
    scene.submit(caller=BOB)
    assert scene.run(scene.service.counts()) == TaskCounts(pending=2)


def test_tasks_are_found_by_what_their_owner_sees(scene: Scene) -> None:
    mine, other = scene.submit(caller=ALICE), scene.submit(caller=BOB)
    found = [
        [one.task for one in scene.run(scene.service.find(TaskQuery(owner=caller.sees))).found]
        for caller in (ALICE, ADMIN)
    ]
    assert found == [[mine], [other, mine]]


# --- waiting -----------------------------------------------------------------------------------


def test_only_a_pending_task_is_asked_for_its_place(scene: Scene) -> None:
    ahead, behind = scene.submit(), scene.submit()
    assert scene.run(scene.service.queue_position(behind)) == 2
    scene.run(scene.service.cancel(ALICE, ahead.id))
    assert scene.run(scene.service.queue_position(behind)) == 1
    assert scene.run(scene.service.queue_position(scene.get(ahead))) is None


def test_the_backlog_is_how_long_the_next_task_waits(scene: Scene) -> None:
    scene.submit()
    scene.clock.advance(5)
    assert scene.run(scene.service.backlog_seconds()) == 5


def test_a_finished_task_expires_by_the_retention_of_the_service(scene: Scene) -> None:
    failed, pending = scene.fail(), scene.submit()
    assert scene.service.expires_at(failed) == after(scene.clock.now(), 60)
    assert scene.service.expires_at(pending) is None


# --- once more ---------------------------------------------------------------------------------


def test_a_retry_is_a_new_task_that_asks_for_the_same(scene: Scene) -> None:
    asked = Submission(
        input=b'"hi"',
        options=b'{"a":1}',
        model="m",
        metadata={"a": "b"},
        timeout_seconds=0.5,
        max_attempts=2,
        priority=3,
        deadline_seconds=50,
        idempotency=Idempotency("key", b""),
    )
    old = scene.fail(asked)
    scene.clock.advance(20)
    new = scene.retry(old)
    assert (new.id, new.retry_of, new.status) == ("task-2", old.id, TaskStatus.PENDING)
    assert (new.executor, new.model, new.metadata) == ("llama", "m", {"a": "b"})
    assert (new.timeout_seconds, new.max_attempts, new.priority) == (0.5, 2, 3)
    assert new.due_at - new.rank == old.due_at - old.rank
    assert new.deadline == after(new.created_at, 50)
    payload = scene.run(scene.store.payload(new.id, "alice"))
    assert payload == Payload(b'"hi"', b'{"a":1}')
    assert scene.get(old) == old


def test_a_retry_does_not_wait_for_the_delay_again(scene: Scene) -> None:
    old = scene.submit(Submission(input=b'"hi"', delay_seconds=60))
    scene.run(scene.service.cancel(ALICE, old.id))
    new = scene.retry(old)
    assert (new.not_before, new.due_at) == (None, scene.clock.now())


def test_a_retry_by_an_admin_is_a_task_of_the_same_owner(scene: Scene) -> None:
    assert scene.retry(scene.fail(), ADMIN).owner == "alice"


def test_a_retry_goes_where_its_model_is_served_now(scene: Scene) -> None:
    old = scene.submit(Submission(input=b'"hi"', model="m"))
    scene.run(scene.store.reroute(["elsewhere"], Routes({}, fallback="elsewhere")))
    scene.run(scene.service.cancel(ALICE, old.id))
    assert (scene.get(old).executor, scene.retry(old).executor) == ("elsewhere", "llama")


def test_only_what_failed_or_was_cancelled_is_tried_again(scene: Scene) -> None:
    task = scene.submit()

    def status() -> TaskStatus:
        answer = scene.run(scene.service.retry(ALICE, task.id))
        assert isinstance(answer, NotRetryable)
        return answer.status

    assert status() is TaskStatus.PENDING
    [claim] = scene.run(scene.store.claim("worker", {"echo": 1}, LEASE))
    assert status() is TaskStatus.RUNNING
    scene.run(scene.store.settle([Retry(claim.fence, BUSY, seconds=0)]))
    assert status() is TaskStatus.PENDING
    [claim] = scene.run(scene.store.claim("worker", {"echo": 1}, LEASE))
    scene.run(scene.store.settle([Completed(claim.fence, b"{}", None)]))
    assert status() is TaskStatus.COMPLETED
    assert scene.run(scene.service.retry(ALICE, "no such id")) is None


def test_a_retry_is_a_submission_like_any_other_when_the_queue_is_full(scene: Scene) -> None:
    old = scene.fail()
    for _ in range(3):
        scene.submit()
    assert scene.run(scene.service.retry(ALICE, old.id)) == QueueFull(pending=3)
