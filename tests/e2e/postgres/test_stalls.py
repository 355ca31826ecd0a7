"""A worker that stands still beyond its leases, and goes on: it changes nothing any more."""

import json
import time
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGSTOP
from typing import NamedTuple

import pytest

SEED = 20_240_603
HELD_SECONDS = 2  # so a task that is held would end while its worker stands still
STARTED, GIVEN_UP, REFUSED = "task_started", "lease_lost", "late_result_refused"
LONG_FORM = [pytest.mark.torture, pytest.mark.timeout(1800)]
ROUNDS_AND_LEASES = [(2, 1), pytest.param(60, 2, marks=LONG_FORM)]


class Event(NamedTuple):
    """What a worker tells of an attempt."""

    name: str
    task_id: str
    attempt: int


def told(workers, *names):
    lines = [line for worker in workers for line in worker.lines]
    events = [json.loads(line) for line in lines if any(f'"{name}"' in line for name in names)]
    return [Event(event["event"], event["task_id"], event["attempt"]) for event in events]


def attempts(events):
    return [(event.task_id, event.attempt) for event in events]


def has_begun(worker, task_ids):
    return any(event.task_id in task_ids for event in told([worker], STARTED))


def all_noticed(workers, lost):
    """Whether of each of these attempts is told that it changed nothing."""
    return set(attempts(told(workers, GIVEN_UP, REFUSED))).issuperset(lost)


def stand_still(worker, seconds, meanwhile, eventually):
    """Stop the worker, and let it go on once so many seconds have passed and all this is true."""
    worker.signal(SIGSTOP)
    goes_on_at = time.monotonic() + seconds
    answer = meanwhile()
    eventually(lambda: time.monotonic() >= goes_on_at, seconds + 1, "it goes on")
    worker.signal(SIGCONT)
    return answer


def taken_over_from(worker, database, load, eventually):
    """The attempts that this worker began, and after which others ended the task."""
    held = database.held_by(worker)
    eventually(partial(load.are_done, held), 30, "others end its tasks")
    over = {task_id for task_id, attempt in held.items() if load.look(task_id)["attempt"] > attempt}
    # It may never hear of what it claimed in the moment it was stopped.
    return {start for start in attempts(told([worker], STARTED)) if start[0] in over}


@pytest.mark.parametrize(("rounds", "lease_seconds"), ROUNDS_AND_LEASES)
def test_a_worker_that_stood_still_gives_up_or_is_refused_each_task_that_others_took_over(
    make_fleet, load_on, database, eventually, rounds, lease_seconds
):
    fleet = make_fleet(
        workers=3,
        worker__lease_seconds=lease_seconds,
        worker__max_crashes=1_000_000,
        logging__level="debug",  # which tells what is started
    )
    random = Random(SEED)
    taken_over = 0
    with load_on(fleet.api, SEED) as load:
        for _ in range(rounds):
            load.go_on(random.randrange(20))
            held = fleet.hold_on_each_worker(load, HELD_SECONDS)
            victim = random.choice(fleet.workers)
            eventually(partial(has_begun, victim, held), 10, "it knows of its task")
            losing = partial(taken_over_from, victim, database, load, eventually)
            lost = stand_still(victim, 3 * lease_seconds, losing, eventually)
            assert lost
            eventually(partial(all_noticed, [victim], lost), 10, "it notices each")
            assert load.are_done(task_id for task_id, _ in lost), "nothing that was seen changed"
            taken_over += len(lost)
    ends = told(fleet.workers, GIVEN_UP, REFUSED)
    print(f"{taken_over} taken over: {Counter(end.name for end in ends)}")
    assert len(ends) == len(set(attempts(ends))), "each is told once, as the one or the other"
    assert load.until_all_complete() >= taken_over
    assert load.refused == []


@pytest.mark.parametrize(("rounds", "lease_seconds"), ROUNDS_AND_LEASES)
def test_a_result_that_comes_after_another_worker_began_or_ended_the_task_is_refused(
    make_fleet, eventually, rounds, lease_seconds
):
    fleet = make_fleet(
        workers=2,
        environ={"PYTHONPATH": str(Path(__file__).parent)},
        executors__abrupt=json.dumps({"kind": "abrupt:AbruptExecutor", "models": ["abrupt"]}),
        worker__lease_seconds=lease_seconds,
    )
    for number in range(rounds):
        seconds = 2 * (number % 2)
        task_id = fleet.api.submit("late", {"model": "abrupt", "later_seconds": seconds})
        if seconds:
            fleet.api.until_running(task_id, after_attempt=1)
        else:
            fleet.api.until_done(task_id)
        for worker in fleet.workers:
            worker.signal(SIGCONT)  # does nothing to the one that did not stop
        eventually(partial(all_noticed, fleet.workers, [(task_id, 1)]), 10, "it is refused")
        ended = fleet.api.until_done(task_id)
        assert (ended["attempt"], ended["result"]) == (2, {"output": "attempt 2"})
    ends = told(fleet.workers, GIVEN_UP, REFUSED)
    assert [end.name for end in ends] == [REFUSED] * rounds
