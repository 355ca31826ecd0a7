"""The moves of a task, over every pair of status and move."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from domain.inference import Usage
from domain.task import (
    TERMINAL,
    TRANSITIONS,
    Move,
    Task,
    TaskError,
    TaskStatus,
    TransitionRefused,
    worker_lost,
)

NOW, DUE = 5_000_000, 9_000_000
ERROR = TaskError("executor_error", "it broke", retryable=True)
USAGE = Usage(1, 2, 3)

MOVES: dict[Move, Callable[[Task], Task]] = {
    Move.CLAIM: lambda task: task.claimed(NOW),
    Move.COMPLETE: lambda task: task.completed(NOW, b'{"output":1}', USAGE),
    Move.FAIL: lambda task: task.failed(NOW, ERROR),
    Move.RETRY: lambda task: task.retried(DUE),
    Move.HAND_BACK: lambda task: task.handed_back(),
    Move.LOSE_WORKER: lambda task: task.worker_vanished(NOW, max_crashes=9),
    Move.GIVE_UP: lambda task: task.worker_vanished(NOW, max_crashes=2),
}
CHANGES: dict[Move, dict[str, object]] = {
    Move.CLAIM: {"attempt": 5, "started_at": NOW},
    Move.COMPLETE: {"completed_at": NOW, "result": b'{"output":1}', "usage": USAGE},
    Move.FAIL: {"completed_at": NOW, "error": ERROR, "failures": 4},
    Move.RETRY: {"rank": DUE, "started_at": None, "failures": 4},
    Move.HAND_BACK: {"started_at": None},
    Move.LOSE_WORKER: {"started_at": None, "crashes": 3},
    Move.GIVE_UP: {"completed_at": NOW, "error": worker_lost(2), "crashes": 3},
}
PAIRS = [(status, move) for status in TaskStatus for move in Move]


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
        rank=1,
        created_at=1,
        attempt=4,
        failures=3,
        crashes=2,
        started_at=2,
    )


@pytest.mark.parametrize(("status", "move"), TRANSITIONS)
def test_an_allowed_move_changes_its_own_fields_and_no_others(
    status: TaskStatus, move: Move
) -> None:
    task = task_in(status)
    changes = {"status": TRANSITIONS[status, move], **CHANGES[move]}
    assert asdict(MOVES[move](task)) == asdict(task) | changes


@pytest.mark.parametrize(("status", "move"), [pair for pair in PAIRS if pair not in TRANSITIONS])
def test_every_other_move_is_refused(status: TaskStatus, move: Move) -> None:
    with pytest.raises(TransitionRefused, match=f"a {status} task cannot"):
        MOVES[move](task_in(status))


def test_the_set_of_statuses_is_closed() -> None:
    assert set(TaskStatus) == {"pending", "running", "completed", "failed", "cancelled"}
    assert {"completed", "failed", "cancelled"} == TERMINAL


@pytest.mark.parametrize("status", TERMINAL)
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


def test_being_routed_anew_changes_the_executor_only() -> None:
    task = task_in(TaskStatus.PENDING)
    assert asdict(task.routed("llama")) == asdict(task) | {"executor": "llama"}
