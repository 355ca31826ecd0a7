"""SIGTERM and SIGINT: the real process stops in time, loses nothing, and fails nothing."""

import json
import signal
import socket
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest

DRAIN_SECONDS = 1
LONG_POLLS = 100
POST_HEAD = (
    b"POST /api/v1/task/inference HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 100\r\n"
)


@pytest.fixture
def connections():
    """Sockets that live until the test ends."""
    with ExitStack() as opened:
        yield opened


def open_sockets(service, big_task, connections):
    """One connection of each kind that a service may find open when it has to stop."""
    idle, half_head, half_body, slow_reader = (
        connections.enter_context(socket.create_connection(service.address, timeout=10))
        for _ in range(4)
    )
    idle.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert idle.recv(4096).startswith(b"HTTP/1.1 200")
    half_head.sendall(POST_HEAD)
    half_body.sendall(POST_HEAD + b'\r\n{"input": "')
    # More answers than the buffers of both ends hold, and nobody reads them.
    get = f"GET /api/v1/task/{big_task} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    slow_reader.sendall(get * 20)
    slow_reader.recv(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_time_and_hands_back_what_is_unfinished(
    make_service, connections, number
):
    # With max_crashes 0, a task that was not handed back fails at the next start.
    service = make_service(server__drain_seconds=DRAIN_SECONDS, worker__max_crashes=0).start()
    big = service.submit("x" * 900_000, {})
    service.until_done(big)
    unfinished = service.submit("unfinished", {"delay_seconds": 60})
    finishing = service.submit("finishing", {"delay_seconds": 0.5})
    service.until_running(unfinished)
    service.until_running(finishing)
    open_sockets(service, big, connections)

    service.signal(number)
    assert service.exit_code(within=DRAIN_SECONDS + 2) == 0

    service.restart()
    again = service.until_running(unfinished, within=2, after_attempt=1)
    assert (again["attempt"], again["failures"], again["error"]) == (2, 0, None)
    finished = service.task(finishing)
    assert (finished["status"], finished["attempt"]) == ("completed", 1)


def test_a_draining_service_answers_reads_and_refuses_new_tasks(make_service, eventually):
    service = make_service(server__drain_seconds=20).start()
    running = service.submit("running", {"delay_seconds": 2})
    service.until_running(running)
    service.signal(signal.SIGTERM)
    not_ready = eventually(
        lambda: service.request("GET", "/readyz").status == 503, 1, "the drain shows"
    )
    assert not_ready
    refused = service.post("late", {})
    assert (refused.status, refused.json["code"]) == (503, "draining")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["Content-Type"].startswith("application/problem+json")
    assert service.request("GET", "/livez").status == 200
    assert service.task(running)["status"] == "running"
    # It does not wait for the rest of drain_seconds once nothing runs any more.
    assert service.exit_code(within=5) == 0
    service.restart()
    assert service.task(running)["status"] == "completed"
    assert service.request("GET", "/api/v1/health").json["tasks_count"] == 1


@pytest.fixture(params=["serve", "serve --no-worker"])
def answering(request, make_service):
    """A service with nothing to drain; the one without a worker is on PostgreSQL."""
    store = {}
    if request.param != "serve":
        dsn = request.getfixturevalue("new_schema")()
        store = {"store__backend": "postgres", "store__dsn": dsn}
    return make_service(command=request.param, server__drain_seconds=60, **store).start()


def test_a_hundred_long_polls_are_answered_and_the_process_ends_soon(
    answering, connections, eventually
):
    host, port = answering.address
    waiting = [
        connections.enter_context(closing(HTTPConnection(host, port, timeout=20)))
        for _ in range(LONG_POLLS)
    ]
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
    body = json.dumps({"input": "later", "delay_seconds": 3_600})
    for connection in waiting:
        connection.request("POST", "/api/v1/task/inference", body, headers)
    eventually(
        lambda: answering.request("GET", "/api/v1/health").json["tasks_count"] == LONG_POLLS,
        10,
        "all wait",
    )
    answering.signal(signal.SIGTERM)
    for connection in waiting:
        reply = connection.getresponse()
        assert (reply.status, json.load(reply)["status"]) == (202, "pending")
        assert reply.headers["Preference-Applied"] == "wait=60"
    # Nothing runs, so neither of them takes the minute that tasks would have been given.
    assert answering.exit_code(within=5) == 0


def test_a_second_signal_ends_the_process_within_a_second(make_service, eventually):
    service = make_service(server__drain_seconds=60).start()
    task_id = service.submit("running", {"delay_seconds": 60})
    service.until_running(task_id)
    service.signal(signal.SIGTERM)
    eventually(lambda: service.request("GET", "/readyz").status == 503, 1, "the drain shows")
    service.signal(signal.SIGINT)
    service.exit_code(within=1)
    service.restart()
    service.until_running(task_id, within=2, after_attempt=1)


def test_a_signal_during_the_start_ends_the_process(make_service, eventually):
    service = make_service().launch()
    database = service.directory / "data" / "task-agent.db"
    eventually(database.exists, 20, "the start is under way")
    service.signal(signal.SIGTERM)
    service.exit_code(within=3)
    service.start()
    assert json.loads(service.request("GET", "/api/v1/health").body)["status"] == "healthy"
