"""`kill -9` of the real process, on SQLite: nothing accepted is lost, nothing seen changes."""

from datetime import datetime, timedelta
from functools import partial
from random import Random

import pytest

SLOTS = 8
SEED = 20_240_601
ORPHANS_WAIT = timedelta(seconds=2)  # at most, after `service_ready`; promised
HELD_SECONDS = 3  # how long a task that is to be killed would run
ROUNDS = [3, pytest.param(30, marks=[pytest.mark.torture, pytest.mark.timeout(1800)])]


@pytest.fixture
def service(make_service):
    settings = {"inference__max_concurrent_tasks": SLOTS, "worker__max_crashes": 1_000_000}
    return make_service(**settings).start()


def attempts_if_all_running(load, task_ids):
    tasks = [load.look(task_id) for task_id in task_ids]
    if any(task["status"] != "running" for task in tasks):
        return None
    return {task["task_id"]: task["attempt"] for task in tasks}


def all_started_again(load, attempts):
    return all(load.look(task_id)["attempt"] > attempt for task_id, attempt in attempts.items())


def starts(load, task_ids):
    return [datetime.fromisoformat(load.look(task_id)["started_at"]) for task_id in task_ids]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_kills_with_every_slot_taken_lose_nothing_and_orphans_run_within_two_seconds(
    service, load_on, eventually, rounds
):
    random = Random(SEED)
    held: list[str] = []
    with load_on(service, SEED) as load:
        for _ in range(rounds):
            # In some rounds the orphans of the last kill are killed once more.
            if not attempts_if_all_running(load, held) or random.random() < 0.5:
                eventually(partial(load.are_done, held), 30, "the last ones end")
                held = [load.submit(f"held {number}", HELD_SECONDS) for number in range(SLOTS)]
            eventually(partial(attempts_if_all_running, load, held), 20, "every slot is taken")
            load.go_on(random.randrange(20))
            attempts = attempts_if_all_running(load, held)
            service.kill()
            assert attempts, "a task ended before the kill: this round would show nothing"
            service.restart()
            eventually(partial(all_started_again, load, attempts), 10, "the orphans run again")
            assert all(moment <= service.ready_at + ORPHANS_WAIT for moment in starts(load, held))
    assert load.until_all_complete() == SLOTS * rounds
    assert load.refused == []


@pytest.mark.parametrize("rounds", ROUNDS)
def test_kills_amid_quick_tasks_lose_nothing(service, load_on, rounds):
    """Here the kill may fall into any step: a submit, a claim, a settle."""
    random = Random(SEED)
    with load_on(service, SEED, clients=4) as load:
        for _ in range(rounds):
            load.go_on(30 + random.randrange(30))
            service.kill()
            service.restart()
    assert load.until_all_complete() <= SLOTS * rounds
    assert load.refused == []


def test_a_task_whose_worker_vanished_more_than_max_crashes_times_fails(make_service):
    service = make_service(worker__max_crashes=1).start()
    poison = service.submit("poison", {"delay_seconds": 60})
    service.until_running(poison)
    service.kill()
    service.restart()
    bystander = service.submit("bystander", {"delay_seconds": 0.5})
    service.until_running(poison, after_attempt=1)
    service.until_running(bystander)
    service.kill()
    service.restart()
    ended = service.until_done(poison)
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "worker_lost"
    assert (ended["attempt"], ended["failures"]) == (2, 0)
    survivor = service.until_done(bystander)
    assert (survivor["status"], survivor["attempt"]) == ("completed", 2)
