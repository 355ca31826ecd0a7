"""The moves of a task, over every pair of status and move."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from adapters.testing.store_case import new_task
from domain.inference import Usage
from domain.task import (
    DEADLINE_EXCEEDED,
    MOST_PAST_ATTEMPTS,
    TERMINAL,
    TRANSITIONS,
    AttemptOutcome,
    AttemptRecord,
    Move,
    Task,
    TaskError,
    TaskStatus,
    TransitionRefused,
    worker_lost,
)

NOW = 5_000_000
ASKED = 4_000_000
ERROR = TaskError("executor_error", "it broke", retryable=True)
USAGE = Usage(1, 2, 3)

MOVES: dict[Move, Callable[[Task], Task]] = {
    Move.CLAIM: lambda task: task.claimed(NOW),
    Move.COMPLETE: lambda task: task.completed(NOW, b'{"output":1}', USAGE),
    Move.FAIL: lambda task: task.failed(NOW, ERROR),
    Move.RETRY: lambda task: task.retried(NOW, 4.5, ERROR),
    Move.HAND_BACK: lambda task: task.handed_back(NOW),
    Move.LOSE_WORKER: lambda task: task.worker_vanished(NOW, max_crashes=9),
    Move.GIVE_UP: lambda task: task.worker_vanished(NOW, max_crashes=2),
    Move.CANCEL: lambda task: task.cancelled(NOW),
    Move.EXPIRE: lambda task: task.expired(NOW),
}


def ended(outcome: AttemptOutcome, error_code: str | None = None) -> AttemptRecord:
    """The running attempt of `task_in`, once it ended like this."""
    return AttemptRecord(4, "echo", 2, NOW, outcome, error_code)


CHANGES: dict[Move, dict[str, object]] = {
    Move.CLAIM: {"attempt": 5, "started_at": NOW},
    Move.COMPLETE: {"completed_at": NOW, "result": b'{"output":1}', "usage": USAGE},
    Move.FAIL: {"completed_at": NOW, "error": ERROR, "failures": 4},
    Move.RETRY: {
        "due_at": 9_500_000,
        "rank": 9_400_000,
        "started_at": None,
        "failures": 4,
        "past_attempts": (ended(AttemptOutcome.FAILED, "executor_error"),),
    },
    Move.HAND_BACK: {"started_at": None, "past_attempts": (ended(AttemptOutcome.HANDED_BACK),)},
    Move.LOSE_WORKER: {
        "started_at": None,
        "crashes": 3,
        "past_attempts": (ended(AttemptOutcome.WORKER_LOST, "worker_lost"),),
    },
    Move.GIVE_UP: {"completed_at": NOW, "error": worker_lost(2), "crashes": 3},
    Move.CANCEL: {"completed_at": NOW, "cancel_requested_at": NOW},
    Move.EXPIRE: {"completed_at": NOW, "error": DEADLINE_EXCEEDED},
}
PAIRS = [(status, move) for status in TaskStatus for move in Move]
ENDS_OF_ATTEMPTS = [move for status, move in TRANSITIONS if status is TaskStatus.RUNNING]


def task_in(status: TaskStatus) -> Task:
    return Task(
        id="t",
        owner="alice",
        status=status,
        executor="echo",
        model="m",
        metadata={"a": "b"},
        timeout_seconds=1.5,
        max_attempts=3,
        rank=1_100_000,
        due_at=1_200_000,
        created_at=1,
        attempt=4,
        failures=3,
        crashes=2,
        started_at=None if status is TaskStatus.PENDING else 2,
    )


def fields(task: Task) -> dict[str, object]:
    return asdict(task)


@pytest.mark.parametrize(("status", "move"), TRANSITIONS)
def test_an_allowed_move_changes_its_own_fields_and_no_others(
    status: TaskStatus, move: Move
) -> None:
    task = task_in(status)
    changes = {"status": TRANSITIONS[status, move], **CHANGES[move]}
    assert fields(MOVES[move](task)) == fields(task) | changes


@pytest.mark.parametrize("is_to_be_cancelled", [False, True])
@pytest.mark.parametrize(("status", "move"), [pair for pair in PAIRS if pair not in TRANSITIONS])
def test_every_other_move_is_refused(
    status: TaskStatus, move: Move, is_to_be_cancelled: bool
) -> None:
    task = replace(task_in(status), cancel_requested_at=ASKED if is_to_be_cancelled else None)
    with pytest.raises(TransitionRefused, match=f"a {status} task cannot"):
        MOVES[move](task)


@pytest.mark.parametrize("move", ENDS_OF_ATTEMPTS)
def test_once_it_is_to_be_cancelled_every_end_of_an_attempt_cancels_the_task(move: Move) -> None:
    task = replace(task_in(TaskStatus.RUNNING), cancel_requested_at=ASKED)
    changes: dict[str, object] = {"status": TaskStatus.CANCELLED, "completed_at": NOW}
    if move in {Move.LOSE_WORKER, Move.GIVE_UP}:
        changes["crashes"] = 3
    assert fields(MOVES[move](task)) == fields(task) | changes


def test_the_set_of_statuses_is_closed() -> None:
    assert set(TaskStatus) == {"pending", "running", "completed", "failed", "cancelled"}
    assert {"completed", "failed", "cancelled"} == TERMINAL


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_no_move_leads_out_of_a_terminal_status(status: TaskStatus) -> None:
    assert task_in(status).done
    assert not [move for start, move in TRANSITIONS if start is status]


@given(st.lists(st.sampled_from(Move)))
def test_the_counters_never_fall_and_each_has_one_cause(moves: list[Move]) -> None:
    task = task_in(TaskStatus.PENDING)
    for move in moves:
        if (task.status, move) not in TRANSITIONS:
            continue
        if move is Move.LOSE_WORKER and task.crashes >= 9:
            continue
        moved = MOVES[move](task)
        assert moved.attempt - task.attempt == (move is Move.CLAIM)
        assert moved.failures - task.failures == (move in {Move.FAIL, Move.RETRY})
        assert moved.crashes - task.crashes == (move in {Move.LOSE_WORKER, Move.GIVE_UP})
        task = moved


@pytest.mark.parametrize(
    ("max_crashes", "status"), [(3, TaskStatus.PENDING), (2, TaskStatus.FAILED)]
)
def test_a_task_may_lose_its_worker_max_crashes_times(max_crashes: int, status: TaskStatus) -> None:
    task = task_in(TaskStatus.RUNNING)  # it lost two already
    assert task.worker_vanished(NOW, max_crashes).status is status


def test_a_cancel_request_cancels_what_waits_and_marks_what_runs() -> None:
    pending, running = task_in(TaskStatus.PENDING), task_in(TaskStatus.RUNNING)
    assert pending.cancel_requested(NOW) == pending.cancelled(NOW)
    assert running.cancel_requested(NOW) == replace(running, cancel_requested_at=NOW)


@pytest.mark.parametrize("status", TaskStatus)
def test_a_second_cancel_request_changes_nothing(status: TaskStatus) -> None:
    asked = task_in(status).cancel_requested(ASKED)
    assert asked.cancel_requested(NOW) is asked


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_a_cancel_request_comes_too_late_for_what_ended(status: TaskStatus) -> None:
    task = task_in(status)
    assert task.cancel_requested(NOW) is task


@pytest.mark.parametrize(
    ("deadline", "overdue"), [(None, False), (NOW + 1, False), (NOW, True), (NOW - 1, True)]
)
def test_a_deadline_has_passed_from_its_instant_on(deadline: int | None, overdue: bool) -> None:
    assert replace(task_in(TaskStatus.PENDING), deadline=deadline).overdue(NOW) == overdue


def test_a_pending_task_has_no_attempt_but_those_that_are_past() -> None:
    task = task_in(TaskStatus.RUNNING).handed_back(NOW)
    assert task.attempts == (ended(AttemptOutcome.HANDED_BACK),)


def test_the_attempt_that_runs_is_the_latest() -> None:
    task = task_in(TaskStatus.RUNNING).handed_back(NOW).claimed(NOW + 1)
    running = AttemptRecord(5, "echo", NOW + 1, None, None, None)
    assert task.attempts == (ended(AttemptOutcome.HANDED_BACK), running)


@pytest.mark.parametrize(
    ("move", "latest"),
    [
        (Move.COMPLETE, ended(AttemptOutcome.COMPLETED)),
        (Move.FAIL, ended(AttemptOutcome.FAILED, "executor_error")),
        (Move.GIVE_UP, ended(AttemptOutcome.WORKER_LOST, "worker_lost")),
        (Move.CANCEL, ended(AttemptOutcome.CANCELLED)),
    ],
)
def test_the_last_attempt_ended_as_the_task_did(move: Move, latest: AttemptRecord) -> None:
    assert MOVES[move](task_in(TaskStatus.RUNNING)).attempts == (latest,)


@pytest.mark.parametrize("move", [Move.CANCEL, Move.EXPIRE])
def test_a_task_that_ends_while_it_waits_makes_up_no_attempt(move: Move) -> None:
    assert MOVES[move](task_in(TaskStatus.PENDING)).attempts == ()


def test_the_oldest_attempts_are_forgotten_when_there_are_very_many() -> None:
    task = task_in(TaskStatus.PENDING)
    for _ in range(MOST_PAST_ATTEMPTS + 7):
        task = task.claimed(NOW).handed_back(NOW)
    numbers = [one.number for one in task.attempts]
    assert numbers == list(range(4 + 7 + 1, 4 + 7 + 1 + MOST_PAST_ATTEMPTS))


@pytest.mark.parametrize(
    ("asked", "not_before", "due_at"),
    [
        ({}, None, NOW),
        ({"delay_seconds": 0}, NOW, NOW),
        ({"delay_seconds": 2}, NOW + 2_000_000, NOW + 2_000_000),
        ({"run_at": NOW + 1}, NOW + 1, NOW + 1),
        ({"run_at": NOW - 1}, NOW - 1, NOW),
    ],
)
def test_a_new_task_is_due_when_it_asked_for_but_not_before_now(
    asked: dict[str, int], not_before: int | None, due_at: int
) -> None:
    task = new_task(**asked).accepted(NOW)
    assert (task.not_before, task.due_at, task.rank) == (not_before, due_at, due_at)


@pytest.mark.parametrize("delay_seconds", [None, 2])
def test_a_head_start_counts_from_when_the_task_is_due(delay_seconds: float | None) -> None:
    for head_start in (-60, 60):
        new = new_task(head_start_seconds=head_start, delay_seconds=delay_seconds)
        task = new.accepted(NOW)
        assert task.due_at - task.rank == head_start * 1_000_000


def test_a_deadline_counts_from_creation_whatever_the_delay() -> None:
    task = new_task(deadline_seconds=2.5, delay_seconds=9).accepted(NOW)
    assert task.deadline == NOW + 2_500_000


def test_being_routed_anew_changes_the_executor_only() -> None:
    task = task_in(TaskStatus.PENDING)
    assert asdict(task.routed("llama")) == asdict(task) | {"executor": "llama"}
