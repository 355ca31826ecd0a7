"""Several workers on many tasks: each is started once, and ended once."""

import json
import threading
from collections import Counter
from functools import partial
from http.client import HTTPConnection

import pytest

CLIENTS = 4
HEADERS = {"Content-Type": "application/json"}


def submit_many(address, number):
    """Submit so many quick tasks on one connection."""
    host, port = address
    connection = HTTPConnection(host, port, timeout=20)
    for _ in range(number):
        connection.request("POST", "/api/v1/task/inference", b'{"input": "quick"}', HEADERS)
        answer = connection.getresponse()
        assert answer.status == 202, answer.read()
        answer.read()
    connection.close()


def completions(workers):
    """How often each task was completed, as the workers tell."""
    lines = [line for worker in workers for line in worker.lines if "task_completed" in line]
    return Counter(json.loads(line)["task_id"] for line in lines)


def all_ended(database):
    [[live]] = database.fetch("SELECT count(*) FROM task WHERE status IN ('pending', 'running')")
    return live == 0


@pytest.mark.parametrize(
    "tasks", [1_000, pytest.param(10_000, marks=[pytest.mark.torture, pytest.mark.timeout(1800)])]
)
def test_four_workers_start_each_task_once_and_complete_it_once(
    make_fleet, database, eventually, tasks
):
    fleet = make_fleet(workers=4)
    clients = [
        threading.Thread(target=submit_many, args=[fleet.api.address, tasks // CLIENTS])
        for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    eventually(partial(all_ended, database), 120, "all tasks end")
    [counted] = database.fetch(
        "SELECT count(*), sum(attempt), count(*) FILTER (WHERE status = 'completed') FROM task"
    )
    assert tuple(counted) == (tasks, tasks, tasks)
    eventually(lambda: completions(fleet.workers).total() >= tasks, 20, "the workers tell")
    assert set(completions(fleet.workers).values()) == {1}
    shares = [completions([worker]).total() for worker in fleet.workers]
    print(f"completed by each worker: {shares}")
    assert sum(shares) == tasks
