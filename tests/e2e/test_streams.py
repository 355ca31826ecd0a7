"""Streams of the real process: across a `kill -9`, a SIGTERM, and with very many who read."""

import resource
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import Random
from statistics import quantiles
from time import perf_counter
from typing import Any

import pytest

SEED = 20_261_125
TASK_SECONDS = 4
TEXT = "x" * 400
READERS = [300, pytest.param(10_000, marks=[pytest.mark.torture, pytest.mark.timeout(1800)])]
MOST_KB_PER_READER = 40
TASKS_READ = 25
SUBMITS = 100


class Reader(threading.Thread):
    """Reads the events of a task to its end, whatever happens to the service; where it `is_cut`,
    each connection of it is cut at a random byte."""

    def __init__(self, service: Any, task_id: str, events_in: Callable[..., Any], is_cut: bool):
        super().__init__(daemon=True)
        self.events: list[Any] = []
        self._service = service
        self._path = f"/api/v1/task/{task_id}/events"
        self._events_in = events_in
        self._random = Random(SEED) if is_cut else None
        self.start()

    def run(self) -> None:
        while not (self.events and self.events[-1].kind == "done"):
            with suppress(OSError, HTTPException):
                self._read_on()

    def _read_on(self) -> None:
        after = {"Last-Event-ID": str(self.events[-1].number)} if self.events else {}
        connection = HTTPConnection(self._service.host, timeout=20)
        text = bytearray()
        try:
            connection.request("GET", self._path, headers=after)
            response = connection.getresponse()
            left = self._random.randrange(2_000) if self._random else 1_000_000
            while len(text) < left and (piece := response.read1(left - len(text))):
                text += piece
        finally:
            connection.close()
            self.events += self._events_in(bytes(text))


def assert_same_and_whole(readers):
    first, *others = [reader.events for reader in readers]
    assert all(events == first for events in others)
    assert [event.number for event in first] == list(range(1, len(first) + 1))


@pytest.fixture
def read(events_in):
    """Begin to read: `read(service, task_id, is_cut=True)`."""
    return lambda service, task_id, is_cut: Reader(service, task_id, events_in, is_cut)


def has_output(reader):
    return any(event.kind == "output" for event in reader.events)


def test_streams_that_are_cut_by_kills_too_are_joined_to_the_whole(make_service, eventually, read):
    service = make_service().start()
    task_id = service.submit(TEXT, {"delay_seconds": TASK_SECONDS, "chunk_characters": 1})
    readers = [read(service, task_id, is_cut) for is_cut in (False, True, True)]
    eventually(lambda: has_output(readers[1]), 20, "there is output")
    service.kill()
    service.restart()
    service.until_done(task_id)
    for reader in readers:
        reader.join(30)
    assert_same_and_whole(readers)
    attempts = [event.data["attempt"] for event in readers[0].events]
    assert attempts == sorted(attempts)
    assert attempts[-1] == 2


def test_a_stop_ends_a_hundred_streams_and_a_hundred_long_polls(make_service):
    service = make_service(server__drain_seconds=20).start()
    path = f"/api/v1/task/{service.submit('later', {}, delay_seconds=3_600)}"
    asked = [(f"{path}/events", {}), (path, {"Prefer": "wait=60"})] * 100
    with ExitStack() as opened:
        connections = [ask(service, opened, *one) for one in asked]
        for streaming in connections[::2]:
            streaming.sock.recv(1, socket.MSG_PEEK)
        service.signal(signal.SIGTERM)
        for connection in connections:
            response = connection.getresponse()
            assert response.status == 200
            assert response.read()  # an end that is not clean is an error
    assert service.exit_code(within=5) == 0


def ask(service, opened, path, headers):
    connection = HTTPConnection(service.host, timeout=20)
    opened.callback(connection.close)
    connection.request("GET", path, headers=headers)
    return connection


# --- very many -----------------------------------------------------------------------------------


@pytest.fixture
def many_files():
    """As many open files as may be, here and in what is started from here."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident_kb(service):
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


def submit_seconds(service, number):
    seconds = []
    for _ in range(number):
        started = perf_counter()
        service.submit("meanwhile", {})
        seconds.append(perf_counter() - started)
    return seconds


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
@pytest.mark.parametrize("readers", READERS)
def test_idle_readers_cost_little_memory_and_submits_go_on(make_service, many_files, readers):
    if many_files < readers + 1_000:
        pytest.skip(f"a process may have no more than {many_files} files open (ulimit -Hn)")
    service = make_service(server__drain_seconds=20).start()
    tasks = [service.submit("later", {}, delay_seconds=3_600) for _ in range(TASKS_READ)]
    submit_seconds(service, SUBMITS)
    before = resident_kb(service)
    with ExitStack() as opened:
        for number in range(readers):
            connection = opened.enter_context(socket.create_connection(service.address, 20))
            path = f"/api/v1/task/{tasks[number % TASKS_READ]}/events"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(1)
        kb_per_reader = (resident_kb(service) - before) / readers
        p99_ms = quantiles(submit_seconds(service, SUBMITS), n=100)[-1] * 1_000
        print(f"{readers} readers: {kb_per_reader:.1f} kB each, p99 of submits {p99_ms:.1f} ms")
        assert kb_per_reader <= MOST_KB_PER_READER
        assert p99_ms < 5_000
