"""`kill -9` of the real process, on SQLite: nothing accepted is lost, nothing seen changes."""

import threading
from datetime import datetime, timedelta
from functools import partial
from http.client import HTTPException
from random import Random

import pytest

SLOTS = 8
SEED = 20_240_601
PAUSE_SECONDS = 0.02  # of each client between two tasks
ORPHANS_WAIT = timedelta(seconds=2)  # at most, after `service_ready`; promised
HELD_SECONDS = 3  # how long a task that is to be killed would run
ROUNDS = [3, pytest.param(30, marks=[pytest.mark.torture, pytest.mark.timeout(1800)])]


@pytest.fixture
def service(make_service):
    settings = {"inference__max_concurrent_tasks": SLOTS, "worker__max_crashes": 1_000_000}
    return make_service(**settings).start()


class Load:
    """Clients that submit quick tasks, service or no service, and remember what they saw."""

    def __init__(self, service, seed, clients=2):
        self.accepted = {}
        self.refused = []
        self.ended = {}
        self._service = service
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._submit_on_and_on, args=[Random(f"{seed}/{client}")])
            for client in range(clients)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def submit(self, text, delay_seconds):
        answer = self._service.post(text, {"delay_seconds": delay_seconds})
        if answer.status != 202:
            self.refused.append(answer)
            return None
        self.accepted[answer.json["task_id"]] = text
        return answer.json["task_id"]

    def look(self, task_id):
        """The task, after a check that nothing changed if it had ended when it was last seen."""
        seen = self.ended.get(task_id)
        task = self._service.task(task_id)
        assert seen in (None, task)
        if task["done"]:
            self.ended[task_id] = task
        return task

    def _submit_on_and_on(self, random):
        while not self._stop.wait(PAUSE_SECONDS):
            try:
                task_id = self.submit(f"{random.random()}", random.choice([0, 0.01, 0.05]))
                if task_id and random.random() < 0.5:
                    self.look(task_id)
            except (OSError, HTTPException):
                continue  # killed meanwhile: whether the task was taken is anybody's guess


def more_accepted(load, number, eventually):
    enough = len(load.accepted) + number
    eventually(lambda: len(load.accepted) >= enough, 10, "the load goes on")


def all_done(load, task_ids):
    return all(load.look(task_id)["done"] for task_id in task_ids)


def attempts_if_all_running(load, task_ids):
    tasks = [load.look(task_id) for task_id in task_ids]
    if any(task["status"] != "running" for task in tasks):
        return None
    return {task["task_id"]: task["attempt"] for task in tasks}


def all_started_again(load, attempts):
    return all(load.look(task_id)["attempt"] > attempt for task_id, attempt in attempts.items())


def starts(load, task_ids):
    return [datetime.fromisoformat(load.look(task_id)["started_at"]) for task_id in task_ids]


def check_that_all_complete(load, kills, eventually):
    """Wait for the end of every accepted task, and give the number of starts beyond one each."""
    for task_id in load.accepted:
        eventually(lambda known=task_id: load.look(known)["done"], 60, f"{task_id} ends")
    tasks = {task_id: load.look(task_id) for task_id in load.accepted}
    assert {task["status"] for task in tasks.values()} == {"completed"}
    for task_id, text in load.accepted.items():
        assert tasks[task_id]["result"] == {"output": f"Processed input: {text}"}
    assert load.refused == []
    extra_starts = sum(task["attempt"] for task in tasks.values()) - len(tasks)
    assert extra_starts <= SLOTS * kills
    return extra_starts


@pytest.mark.parametrize("rounds", ROUNDS)
def test_kills_with_every_slot_taken_lose_nothing_and_orphans_run_within_two_seconds(
    service, eventually, rounds
):
    print(f"seed {SEED}")
    random = Random(SEED)
    held: list[str] = []
    with Load(service, SEED) as load:
        for _ in range(rounds):
            # In some rounds the orphans of the last kill are killed once more.
            if not attempts_if_all_running(load, held) or random.random() < 0.5:
                eventually(partial(all_done, load, held), 30, "the last ones end")
                held = [load.submit(f"held {number}", HELD_SECONDS) for number in range(SLOTS)]
            eventually(partial(attempts_if_all_running, load, held), 20, "every slot is taken")
            more_accepted(load, random.randrange(20), eventually)
            attempts = attempts_if_all_running(load, held)
            service.kill()
            assert attempts, "a task ended before the kill: this round would show nothing"
            service.restart()
            eventually(partial(all_started_again, load, attempts), 10, "the orphans run again")
            assert all(moment <= service.ready_at + ORPHANS_WAIT for moment in starts(load, held))
    assert check_that_all_complete(load, rounds, eventually) == SLOTS * rounds


@pytest.mark.parametrize("rounds", ROUNDS)
def test_kills_amid_quick_tasks_lose_nothing(service, eventually, rounds):
    """Here the kill may fall into any step: a submit, a claim, a settle."""
    print(f"seed {SEED}")
    random = Random(SEED)
    with Load(service, SEED, clients=4) as load:
        for _ in range(rounds):
            more_accepted(load, 30 + random.randrange(30), eventually)
            service.kill()
            service.restart()
    check_that_all_complete(load, rounds, eventually)


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
