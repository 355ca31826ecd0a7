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
GIVEN_UP, REFUSED = "lease_lost", "late_result_refused"
LONG_FORM = [pytest.mark.torture, pytest.mark.timeout(1800)]
ROUNDS_AND_LEASES = [(2, 1), pytest.param(60, 2, marks=LONG_FORM)]


class End(NamedTuple):
    """An attempt that changed nothing, as its worker tells."""

    task_id: str
    attempt: int
    event: str


def ends_without_effect(workers):
    """One for each attempt that was given up, or whose result was refused."""
    lines = [line for worker in workers for line in worker.lines]
    events = [json.loads(line) for line in lines if GIVEN_UP in line or REFUSED in line]
    return [End(event["task_id"], event["attempt"], event["event"]) for event in events]


def all_noticed(workers, attempts):
    noticed = {(end.task_id, end.attempt) for end in ends_without_effect(workers)}
    return noticed.issuperset(attempts.items())


def stand_still(worker, seconds, meanwhile, eventually):
    """Stop the worker, and let it go on once so many seconds have passed and all this is true."""
    worker.signal(SIGSTOP)
    goes_on_at = time.monotonic() + seconds
    answer = meanwhile()
    eventually(lambda: time.monotonic() >= goes_on_at, seconds + 1, "it goes on")
    worker.signal(SIGCONT)
    return answer


def taken_over_from(worker, database, load, eventually):
    """The attempts of this worker after which others ended the task."""
    attempts = database.held_by(worker)
    eventually(partial(load.are_done, attempts), 30, "others end its tasks")
    tasks = [load.look(task_id) for task_id in attempts]
    ids = [task["task_id"] for task in tasks if task["attempt"] > attempts[task["task_id"]]]
    return {task_id: attempts[task_id] for task_id in ids}


@pytest.mark.parametrize(("rounds", "lease_seconds"), ROUNDS_AND_LEASES)
def test_a_worker_that_stood_still_gives_up_or_is_refused_each_task_that_others_took_over(
    make_fleet, load_on, database, eventually, rounds, lease_seconds
):
    fleet = make_fleet(
        workers=3, worker__lease_seconds=lease_seconds, worker__max_crashes=1_000_000
    )
    random = Random(SEED)
    taken_over = []
    with load_on(fleet.api, SEED) as load:
        for _ in range(rounds):
            load.go_on(random.randrange(20))
            fleet.hold_on_each_worker(load, HELD_SECONDS)
            victim = random.choice(fleet.workers)
            losing = partial(taken_over_from, victim, database, load, eventually)
            lost = stand_still(victim, 3 * lease_seconds, losing, eventually)
            assert lost
            eventually(partial(all_noticed, [victim], lost), 10, "it notices each")
            assert load.are_done(lost), "and changes nothing that was seen"
            taken_over += lost.items()
    ends = ends_without_effect(fleet.workers)
    print(f"{len(taken_over)} taken over: {Counter(end.event for end in ends)}")
    told = [(end.task_id, end.attempt) for end in ends]
    assert len(told) == len(set(told)), "each is told once, as the one or the other"
    assert load.until_all_complete() >= len(taken_over)
    assert load.refused == []


@pytest.mark.parametrize(("rounds", "lease_seconds"), ROUNDS_AND_LEASES)
def test_a_result_that_comes_after_another_worker_ended_the_task_is_refused(
    make_fleet, eventually, rounds, lease_seconds
):
    fleet = make_fleet(
        workers=2,
        environ={"PYTHONPATH": str(Path(__file__).parent)},
        executors__abrupt=json.dumps({"kind": "abrupt:AbruptExecutor", "models": ["abrupt"]}),
        worker__lease_seconds=lease_seconds,
    )
    for _ in range(rounds):
        task_id = fleet.api.submit("late", {"model": "abrupt"})
        seen = fleet.api.until_done(task_id)
        assert (seen["attempt"], seen["result"]) == (2, {"output": "attempt 2"})
        for worker in fleet.workers:
            worker.signal(SIGCONT)  # does nothing to the one that did not stop
        eventually(partial(all_noticed, fleet.workers, {task_id: 1}), 10, "it is refused")
        assert fleet.api.task(task_id) == seen
    assert [end.event for end in ends_without_effect(fleet.workers)] == [REFUSED] * rounds
