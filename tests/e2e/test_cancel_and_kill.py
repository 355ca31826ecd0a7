"""A cancel against `kill -9` of the real process: what was asked for outlives the crash."""

import threading
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from random import Random

import pytest

SEED = 20_261_125
SLOTS = 8
CLIENTS = 4
ROUNDS = [1, pytest.param(30, marks=[pytest.mark.torture, pytest.mark.timeout(1800)])]


@pytest.fixture(params=["sqlite", "postgres"])
def start(request, make_service):
    """Start a service with these settings on each store whose tasks outlive their process."""
    store = {}
    if request.param == "postgres":
        dsn = request.getfixturevalue("new_schema")()
        store = {"store__backend": "postgres", "store__dsn": dsn}
    return lambda **more: make_service(
        inference__max_concurrent_tasks=SLOTS,
        worker__max_crashes=1_000_000,
        worker__lease_seconds=2,
        **store,
        **more,
    ).start()


def cancel(service, task_id):
    return service.request("POST", f"/api/v1/task/{task_id}/cancel")


def test_a_task_whose_worker_dies_of_its_cancel_is_cancelled_by_the_next(start):
    service = start(
        environ={"PYTHONPATH": str(Path(__file__).parent)},
        executors__mortal={"kind": "mortal:MortalExecutor", "models": ["mortal"]},
    )
    unwanted, other = (service.submit("x", {"model": "mortal"}) for _ in range(2))
    service.until_running(unwanted)
    service.until_running(other)
    with suppress(OSError, HTTPException):  # the answer may come before the end, or not
        cancel(service, unwanted)
    assert service.exit_code(within=10) == -9
    service.restart()
    ended = service.until_done(unwanted)
    assert (ended["status"], ended["attempt"], ended["result"]) == ("cancelled", 1, None)
    assert ended["cancel_requested_at"] is not None
    survivor = service.until_done(other)
    assert (survivor["status"], survivor["attempt"] > 1) == ("completed", True)


class Cancels:
    """Clients that cancel tasks until the service is gone: what they asked, what they were told."""

    def __init__(self, service, task_ids):
        self.asked, self.answers = set(), {}
        self._service, self._task_ids = service, iter(task_ids)
        self._one_at_a_time = threading.Lock()
        self._threads = [threading.Thread(target=self._cancel) for _ in range(CLIENTS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for thread in self._threads:
            thread.join()

    def has_answers(self, number):
        return len(self.answers) >= number

    def _cancel(self):
        with suppress(OSError, HTTPException):
            while task_id := self._next():
                self.answers[task_id] = cancel(self._service, task_id)

    def _next(self):
        with self._one_at_a_time:
            task_id = next(self._task_ids, None)
            self.asked |= {task_id}
            return task_id


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_cancel_that_was_answered_stands_whenever_the_process_is_killed(
    start, eventually, rounds
):
    service, random = start(), Random(SEED)
    for _ in range(rounds):
        tasks = [service.submit("held", {"delay_seconds": 60}) for _ in range(2 * SLOTS)]
        for task_id in tasks[:SLOTS]:
            service.until_running(task_id)
        enough = random.randrange(len(tasks))
        with Cancels(service, random.sample(tasks, len(tasks))) as cancels:
            eventually(partial(cancels.has_answers, enough), 10, "some are answered")
            service.kill()
        service.restart()
        for task_id, answer in cancels.answers.items():
            task = service.until_done(task_id)
            assert (answer.status, task["status"], task["result"]) == (200, "cancelled", None)
            assert not answer.json["done"] or answer.json == task
        untouched = set(tasks) - cancels.asked
        assert not any(service.task(task_id)["done"] for task_id in untouched)
        for task_id in tasks:
            assert cancel(service, task_id).status == 200
            assert service.until_done(task_id)["status"] == "cancelled"
