"""The log of a task: everything that happened to it, numbered without gaps."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from adapters.testing.store_case import BUSY, ERROR, RESULT, USAGE, new_task
from domain.events import (
    Done,
    Event,
    Logged,
    LogPage,
    Recorded,
    StatusChanged,
    events_of,
    lost_until,
    number_of_recorded,
    number_of_start,
)
from domain.task import MOST_PAST_ATTEMPTS, AttemptRecord, Task, TaskStatus

BACK = {
    "retry": lambda task, now: task.retried(now, 0.0, BUSY),
    "hand back": lambda task, now: task.handed_back(now),
    "lose": lambda task, now: task.worker_vanished(now, 1_000),
}
END = {
    "complete": lambda task, now: task.completed(now, RESULT, USAGE),
    "fail": lambda task, now: task.failed(now, ERROR),
    "cancel": lambda task, now: task.cancelled(now),
    "give up": lambda task, now: task.worker_vanished(now, 0),
}
LIVES = st.tuples(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(BACK))), max_size=60),
    st.sampled_from([None, *sorted(END)]),
)


def said(task: Task, count: int, recorded: list[Event]) -> Task:
    """The running attempt says so much."""
    for _ in range(count):
        number = number_of_recorded(task.attempt, task.recorded)
        recorded.append(Event(number, Logged("x", task.attempt)))
        task = task.told(1, None)
    return task


def lived(attempts: list[tuple[int, str]], end: str | None) -> tuple[Task, list[Event]]:
    """A task after these attempts, each of which said so much and ended like this."""
    recorded: list[Event] = []
    task, now = new_task().accepted(1), 1
    for count, move in attempts:
        task = BACK[move](said(task.claimed(now + 1), count, recorded), now + 2)
        now += 2
    if end is not None:
        task = END[end](said(task.claimed(now + 1), 2, recorded), now + 2)
    return task, recorded


def read(task: Task, recorded: list[Event], after: int, limit: int) -> list[Event]:
    behind = [event for event in recorded if event.number > after]
    return events_of(LogPage(task, behind[:limit], len(behind) <= limit, None), after)


@given(LIVES)
def test_numbers_have_no_gaps_and_attempts_never_go_back(
    life: tuple[list[tuple[int, str]], str | None],
) -> None:
    task, recorded = lived(*life)
    lost = lost_until(task)
    events = read(task, recorded, lost, 1_000)
    assert [event.number for event in events] == list(range(lost + 1, lost + 1 + len(events)))
    told = [event.what for event in events]
    attempts = [what.attempt for what in told if isinstance(what, Recorded | StatusChanged)]
    assert attempts == sorted(attempts)
    assert isinstance(events[-1].what, Done) == task.done
    assert (lost > 0) == (task.attempt > MOST_PAST_ATTEMPTS + (task.started_at is not None))


@given(LIVES, st.integers(1, 4))
def test_pages_of_any_size_joined_are_the_whole_log(
    life: tuple[list[tuple[int, str]], str | None], limit: int
) -> None:
    task, recorded = lived(*life)
    start = lost_until(task)
    whole = read(task, recorded, start, 1_000)
    joined: list[Event] = []
    while page := read(task, recorded, joined[-1].number if joined else start, limit):
        joined += page
    assert joined == whole


@given(LIVES)
def test_what_was_told_of_a_live_task_is_never_told_differently(
    life: tuple[list[tuple[int, str]], str | None],
) -> None:
    attempts, end = life
    task, recorded = lived([*attempts, (1, "retry")], end)
    forgotten = lost_until(task)
    earlier = read(*lived(attempts, None), forgotten, 1_000)
    assert read(task, recorded, forgotten, 1_000)[: len(earlier)] == earlier


def test_a_task_that_never_began_has_a_log_too() -> None:
    task = new_task().accepted(1).cancelled(2)
    assert read(task, [], 0, 10) == [
        Event(1, StatusChanged(TaskStatus.PENDING, 0, 1)),
        Event(2, StatusChanged(TaskStatus.CANCELLED, 0, 2)),
        Event(3, Done(task)),
    ]


def test_a_history_of_before_there_were_events_is_read_as_one_without_any() -> None:
    task, _ = lived([(0, "retry"), (0, "lose")], "complete")
    old = [
        AttemptRecord(*(getattr(one, name) for name in one.__struct_fields__[:-1]))
        for one in task.past_attempts
    ]
    assert (
        read(replace(task, past_attempts=tuple(old), recorded=0), [], 0, 10)[:5]
        == (read(task, [], 0, 10)[:5])
    )


def test_the_latest_attempt_starts_where_the_log_says_so() -> None:
    task, recorded = lived([(2, "retry"), (3, "hand back")], None)
    running = task.claimed(100)
    last = read(running, recorded, 0, 1_000)[-1]
    assert (last.number, last.what) == (
        number_of_start(running),
        StatusChanged(TaskStatus.RUNNING, 3, 100),
    )
