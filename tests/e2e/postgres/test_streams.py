"""Streams of one task from two nodes, while its worker is killed."""

from http.client import HTTPConnection

import pytest


class Stream:
    """The events of a task, as one node tells them."""

    def __init__(self, service, task_id, events_in):
        self._connection = HTTPConnection(service.host, timeout=60)
        self._connection.request("GET", f"/api/v1/task/{task_id}/events")
        self._response = self._connection.getresponse()
        self._events_in = events_in
        self._text = b""

    def read_output(self):
        while b"event: output" not in self._text:
            self._text += self._response.read1()

    def read_all(self):
        return self._events_in(self._text + self._response.read())


@pytest.fixture
def stream(events_in):
    return lambda service, task_id: Stream(service, task_id, events_in)


def test_two_nodes_tell_the_same_of_a_task_whose_worker_was_killed(
    make_fleet, make_service, database, stream
):
    fleet = make_fleet(workers=1, worker__lease_seconds=4)
    shared = {"store__backend": "postgres", "store__dsn": database.dsn}
    other = make_service(command="serve --no-worker", **shared).start()
    task_id = fleet.api.submit("x" * 200, {"delay_seconds": 3, "chunk_characters": 1})
    streams = [stream(node, task_id) for node in (fleet.api, other)]
    for one in streams:
        one.read_output()
    assert other.task(task_id)["status"] == "running"
    [worker] = fleet.workers
    worker.kill()
    worker.restart()
    first, second = (one.read_all() for one in streams)
    assert first == second == stream(other, task_id).read_all()
    assert [event.number for event in first] == list(range(1, len(first) + 1))
    attempts = [event.data["attempt"] for event in first]
    assert attempts == sorted(attempts)
    assert attempts[-1] >= 2
    assert first[-1].data["status"] == "completed"
