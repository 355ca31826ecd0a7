"""Streams of events: all that happened to a task, in order, to whoever reads, from wherever on."""

import asyncio
import random
import re
import socket
import struct
from functools import partial
from typing import Any

import pytest

from domain.errors import StoreUnavailable
from domain.events import Logged, Output, ProgressMade, events_of
from domain.inference import Routes, Usage
from domain.ports import Completed, Entry, HandedBack, Retry
from domain.service import Caller, TaskService
from domain.task import ANONYMOUS, TaskError, TaskStatus
from entrypoints.http import edge as edge_module
from entrypoints.http import lookout, streaming

GOOD = {"input": "x"}
LATER = GOOD | {"delay_seconds": 3_600}
NEVER = 3_600.0
SEED = 20_261_125
FRAME = rb"id: \d+\nevent: [a-z]+\ndata: [^\r\n]+\n\n"
RESET = struct.pack("ii", 1, 0)  # a close that says RST
MANY = [150, pytest.param(2_000, marks=pytest.mark.torture)]


class Attempt:
    """An attempt at the task that this answer told of, as its worker sees it."""

    def __init__(self, edge, reply):
        self._edge = edge
        claim = edge.claim(reply)
        self.fence = claim.fence
        self._recorded = claim.task.recorded
        self._characters = 0
        self._pieces = 0

    def say(self, *events):
        entry = Entry(self.fence, self._recorded, events)
        assert self._edge.do(self._edge.queue.append([entry])) == [True]
        self._recorded += len(events)

    def write(self, *texts):
        """Say this output."""
        self.say(*map(self._piece, texts))

    def _piece(self, text):
        self._characters += len(text)
        self._pieces += 1
        return Output(text, self._pieces - 1, self.fence.attempt, self._characters)

    def complete(self, result=b'{"output": "x"}', usage=None):
        self._edge.settle(Completed(self.fence, result, usage), TaskStatus.COMPLETED)

    def fail_for_now(self):
        error = TaskError("executor_error", "it broke", retryable=True)
        self._edge.settle(Retry(self.fence, error, 0.0), TaskStatus.PENDING)


def run_twice(edge):
    """A task that failed once, and then completed; its log has all kinds of events."""
    reply = edge.submit(GOOD)
    first = Attempt(edge, reply)
    first.write("so")
    first.fail_for_now()
    second = Attempt(edge, reply)
    second.say(ProgressMade(0.25, 2), Logged("half\nway", 2))
    second.write("Hel", "lo ")
    second.complete(b'{"output":\n "Hello you"}', Usage(3, 5, 8))
    return reply


@pytest.fixture
def edge(edge):
    """The one of all these tests; by now it may have closed the connection of the last one."""
    edge.connection = edge.connect()
    return edge


@pytest.fixture
def service(service):
    service.connection = service.connect()
    return service


@pytest.fixture
def hinted(make_edge):
    """An edge that learns of what happens by hints alone."""
    return make_edge(worker={"poll_seconds": NEVER})


@pytest.fixture
def read_all(events_in):
    """Reads a stream to its end."""

    def read(edge, reply, after="", **headers):
        response = edge.connect().stream(reply, after, **headers)
        assert response.status == 200, response.read()
        return events_in(response.read())

    return read


@pytest.fixture
def read_next(events_in):
    """Reads the next events of a stream; comments are passed over."""

    def read(response, number):
        lines: list[bytes] = []
        while (
            sum(line == b"\n" and lines[at - 1] != b":\n" for at, line in enumerate(lines)) < number
        ):
            lines.append(response.readline())
            assert lines[-1], "the stream has ended"
        return events_in(b"".join(lines))

    return read


def numbers_of(events):
    return [event.number for event in events]


def told(event):
    return event.kind, event.data


# --- what is told, and in what order -------------------------------------------------------------


def test_a_stream_tells_all_that_happened_in_its_order_and_ends(edge, read_all):
    reply = run_twice(edge)
    events = read_all(edge, reply)
    assert numbers_of(events) == list(range(1, 14))
    moments = [event.data.pop("at") for event in events if event.kind == "status"]
    assert moments == sorted(moments)
    nothing = {"outcome": None, "error_code": None}
    failed = {"outcome": "failed", "error_code": "executor_error"}
    assert list(map(told, events)) == [
        ("status", {"status": "pending", "attempt": 0} | nothing),
        ("status", {"status": "running", "attempt": 1} | nothing),
        ("output", {"delta": "so", "index": 0, "attempt": 1}),
        ("status", {"status": "pending", "attempt": 1} | failed),
        ("status", {"status": "running", "attempt": 2} | nothing),
        ("progress", {"progress": 0.25, "attempt": 2}),
        ("log", {"message": "half\nway", "attempt": 2}),
        ("output", {"delta": "Hel", "index": 0, "attempt": 2}),
        ("output", {"delta": "lo ", "index": 1, "attempt": 2}),
        ("output", {"delta": "you", "index": 2, "attempt": 2}),
        (
            "status",
            {"status": "completed", "attempt": 2, "outcome": "completed", "error_code": None},
        ),
        ("usage", {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}),
        ("done", edge.ask("GET", reply.headers["Location"]).json),
    ]


def test_a_stream_is_written_as_the_standard_has_it(edge):
    connection = edge.connect()
    response = connection.stream(run_twice(edge), X_Request_Id="mine")
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Request-Id"] == "mine"
    assert re.fullmatch(rb"(%s){13}" % FRAME, response.read())
    assert connection.is_closed_by_the_service()


def test_what_happens_is_told_while_it_happens(hinted, read_next):
    reply = hinted.submit(GOOD)
    stream = hinted.connect().stream(reply)
    assert read_next(stream, 1)[0].data["status"] == "pending"
    attempt = Attempt(hinted, reply)
    assert read_next(stream, 1)[0].data["status"] == "running"
    attempt.write("first")
    [first] = read_next(stream, 1)
    assert first.data == {"delta": "first", "index": 0, "attempt": 1}
    assert hinted.ask("GET", reply.headers["Location"]).json["status"] == "running"
    attempt.complete(b'{"output": "first and last"}')
    rest = read_next(stream, 3)
    assert [event.kind for event in rest] == ["output", "status", "done"]
    assert stream.read() == b""


def test_the_first_output_is_read_before_the_executor_is_done(own_service, read_next):
    options = {"delay_seconds": 3_600, "chunk_characters": 1}
    reply = own_service.submit({"input": "x" * 7_200, "options": options})
    stream = own_service.connect().stream(reply)
    events = read_next(stream, 3)
    assert events[-1].kind == "output"
    assert own_service.ask("GET", reply.headers["Location"]).json["status"] == "running"


def test_a_task_that_nobody_watched_is_read_as_events_afterwards(service, read_all):
    text = "x" * 3_000
    options = {"delay_seconds": 0.1, "chunk_characters": 1}
    reply = service.submit({"input": text, "options": options}, Prefer="wait=30")
    events = read_all(service, reply)
    assert numbers_of(events) == list(range(1, len(events) + 1))
    output = "".join(event.data["delta"] for event in events if event.kind == "output")
    assert output == reply.json["result"]["output"]


def test_a_task_that_never_began_ends_too(hinted, read_next):
    reply = hinted.submit(LATER)
    stream = hinted.connect().stream(reply)
    read_next(stream, 1)
    hinted.ask("POST", reply.headers["Location"] + "/cancel")
    cancelled, done = read_next(stream, 2)
    assert (cancelled.data["status"], cancelled.data["attempt"]) == ("cancelled", 0)
    assert done.data["status"] == "cancelled"


def test_what_no_hint_tells_of_is_found_by_asking(make_edge, read_next):
    edge = make_edge(worker={"poll_seconds": 0.02})
    edge.store.is_mute = True
    reply = edge.submit(GOOD)
    stream = edge.connect().stream(reply)
    read_next(stream, 1)
    attempt = Attempt(edge, reply)
    read_next(stream, 1)
    attempt.write("a")
    read_next(stream, 1)
    attempt.complete()
    assert read_next(stream, 2)[-1].kind == "done"


# --- from where on -------------------------------------------------------------------------------


def test_a_stream_goes_on_behind_any_number(edge, read_all):
    reply = run_twice(edge)
    whole = read_all(edge, reply)
    for number in range(len(whole) + 2):
        expected = whole[number:]
        assert read_all(edge, reply, f"?after={number}") == expected
        assert read_all(edge, reply, Last_Event_ID=str(number)) == expected
        assert read_all(edge, reply, f"?after={number}", Last_Event_ID="1") == expected
    assert read_all(edge, reply, f"?after={2**63 - 1}") == []


def test_who_is_ahead_of_a_live_task_waits_for_what_follows(hinted, read_next):
    reply = hinted.submit(GOOD)
    streams = [hinted.connect().stream(reply, f"?after={after}") for after in (2, 3, 2**63 - 1)]
    attempt = Attempt(hinted, reply)
    attempt.write("a", "b")
    assert numbers_of(read_next(streams[0], 2)) == [3, 4]
    assert numbers_of(read_next(streams[1], 1)) == [4]
    attempt.complete()
    assert streams[2].read() == b""


BAD_NUMBERS = ["-1", "x", "", " ", "1.0", "1e3", "+1", "0x1", "1 2", f"{2**63}", "9" * 400]


@pytest.mark.any_store
@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_what_is_no_number_of_an_event_is_refused_by_name(edge, number):
    path = edge.submit(LATER).headers["Location"] + "/events"
    quoted = "".join(f"%{byte:02x}" for byte in number.encode())
    asked = [edge.ask("GET", f"{path}?after={quoted}")]
    if number.isascii():
        asked.append(edge.ask("GET", path, Last_Event_ID=number))
    for reply, name in zip(asked, ["after", "Last-Event-ID"], strict=False):
        assert (reply.status, reply.code, reply.paths) == (400, "invalid_request", [name])


@pytest.mark.any_store
def test_a_number_is_given_once_and_nothing_else_is(edge):
    path = edge.submit(LATER).headers["Location"] + "/events"
    assert edge.ask("GET", f"{path}?after=1&after=1").paths == ["after"]
    assert edge.ask("GET", f"{path}?from=1&after=-1").paths == ["from", "after"]
    assert edge.ask("GET", f"{path}?Last-Event-ID=1").paths == ["Last-Event-ID"]
    assert edge.ask("GET", path, Last_Event_ID=["1", "1"]).paths == ["Last-Event-ID"]
    assert edge.ask("GET", f"{path}?after=1", Last_Event_ID="x").paths == ["Last-Event-ID"]


def test_what_is_not_there_has_no_events(edge):
    for task_id in ("x", "01a210ee-32d2-74a8-a5d8-79c44d8a279d", "%00"):
        reply = edge.ask("GET", f"/api/v1/task/{task_id}/events")
        assert (reply.status, reply.code) == (404, "task_not_found")


def test_a_log_whose_beginning_is_forgotten_says_where_it_begins(hinted, read_next):
    reply = hinted.submit(GOOD)
    for _ in range(52):
        hinted.settle(HandedBack(Attempt(hinted, reply).fence), TaskStatus.PENDING)
    path = reply.headers["Location"] + "/events"
    lost = hinted.ask("GET", path)
    assert (lost.status, lost.code) == (410, "event_offset_lost")
    [until] = re.findall(r"\d+", lost.json["detail"])
    assert hinted.ask("GET", path, Last_Event_ID=str(int(until) - 1)).status == 410
    [first] = read_next(hinted.connect().stream(reply, f"?after={until}"), 1)
    assert first.number == int(until) + 1


# --- cut and joined ------------------------------------------------------------------------------


def read_in_pieces(connect, reply, chance, events_in):
    """Read a stream to its end, though it is cut at random bytes, again and again."""
    events: list[Any] = []
    while not events or events[-1].kind != "done":
        after = f"?after={events[-1].number}" if events else ""
        connection = connect()
        events += events_in(connection.stream(reply, after).read(chance.randrange(1, 2_000)))
        connection.close()
    return events


def test_streams_that_are_cut_and_joined_are_the_whole(edge, read_all, events_in):
    reply = run_twice(edge)
    whole = read_all(edge, reply)
    for seed in range(5):
        chance = random.Random(SEED + seed)
        assert read_in_pieces(edge.connect, reply, chance, events_in) == whole


def test_two_readers_of_a_task_that_runs_read_the_same(service, events_in):
    options = {"delay_seconds": 1, "chunk_characters": 1}
    reply = service.submit({"input": "x" * 100, "options": options})
    steady = service.connect().stream(reply)
    joined = read_in_pieces(service.connect, reply, random.Random(SEED), events_in)
    assert events_in(steady.read()) == joined
    assert numbers_of(joined) == list(range(1, len(joined) + 1))
    assert (
        "".join(event.data.get("delta", "") for event in joined) == "Processed input: " + "x" * 100
    )


# --- what a running task shows -------------------------------------------------------------------


def shown(edge, reply):
    answer = edge.ask("GET", reply.headers["Location"])
    return answer.json["partial_output"], answer.json["progress"], answer.headers["ETag"]


def test_a_task_shows_its_output_and_its_progress_while_it_runs(edge):
    reply = edge.submit(GOOD)
    assert shown(edge, reply)[:2] == (None, None)
    attempt = Attempt(edge, reply)
    tags = [shown(edge, reply)]
    assert tags[0][:2] == (None, None)
    for said, partial_output, progress in [
        (partial(attempt.write, "Hel"), "Hel", None),
        (partial(attempt.say, ProgressMade(0.5, 1)), "Hel", 0.5),
        (partial(attempt.write, "lo", " you"), "Hello you", 0.5),
    ]:
        said()
        tags.append(shown(edge, reply))
        assert tags[-1][:2] == (partial_output, progress)
    attempt.fail_for_now()
    assert shown(edge, reply)[:2] == (None, None)
    again = Attempt(edge, reply)
    assert shown(edge, reply)[:2] == (None, None)
    again.write("other")
    tags.append(shown(edge, reply))
    assert tags[-1][:2] == ("other", None)
    assert len({tag for _, _, tag in tags}) == len(tags)
    again.complete()
    assert shown(edge, reply)[0] is None


class StoreOfOldReads:
    """Something happens to the task whenever it was read that nothing had."""

    def __init__(self, store, happens):
        self._store = store
        self._happens = happens

    async def log(self, task_id, owner, after, limit):
        page = await self._store.log(task_id, owner, after, limit)
        if not events_of(page, after):
            await self._happens()
        return page


class Client:
    """The other end of a stream, without a network."""

    def __init__(self):
        self.text = b""
        self.scope: Any = {"state": {"connection": self}}

    def is_closing(self):
        return False

    def get_extra_info(self, name):
        return self

    def setsockopt(self, *_):
        pass

    async def receive(self):
        await asyncio.Event().wait()

    async def send(self, message):
        self.text += message.get("body", b"")


def test_what_happens_while_the_log_is_read_is_not_missed(hinted, events_in):
    claim = hinted.claim(hinted.submit(GOOD))
    outcomes = [Completed(claim.fence, b'{"output": ""}', None)]

    async def end():
        if outcomes:
            await hinted.queue.settle([outcomes.pop()])

    async def read():
        store: Any = StoreOfOldReads(hinted.queue, end)
        tasks = TaskService(
            store, Routes({}, "echo"), hinted.tasks.limits, hinted.tasks.defaults, lambda: "unused"
        )
        client = Client()
        stream = streaming.Streams(tasks, hinted.lookout).stream(
            Caller(ANONYMOUS), claim.task.id, 2
        )
        async with asyncio.timeout(20):
            await stream(client.scope, client.receive, client.send)
        return client.text

    assert [event.kind for event in events_in(hinted.do(read()))] == ["status", "done"]


# --- ends before the log's ------------------------------------------------------------------------


def test_a_task_that_is_deleted_ends_its_streams(hinted, read_next):
    reply = hinted.submit(LATER)
    stream = hinted.connect().stream(reply)
    read_next(stream, 1)
    hinted.ask("DELETE", reply.headers["Location"])
    assert stream.read() == b""


def test_a_store_that_fails_ends_the_stream_which_then_goes_on(hinted, read_next, read_all):
    reply = hinted.submit(GOOD)
    stream = hinted.connect().stream(reply)
    read_next(stream, 1)
    hinted.store.fault = StoreUnavailable("gone")
    hinted.call(hinted.lookout.tell_events, [reply.json["task_id"]])
    assert stream.read() == b""
    path = reply.headers["Location"] + "/events"
    assert hinted.ask("GET", path).code == "store_unavailable"
    hinted.store.fault = None
    hinted.complete(reply)
    assert numbers_of(read_all(hinted, reply, "?after=1")) == [2, 3, 4, 5]


def test_a_service_that_drains_ends_its_streams(own_service, read_next):
    reply = own_service.submit(LATER)
    stream = own_service.connect().stream(reply)
    read_next(stream, 1)
    own_service.do(own_service.service.drain(0))
    assert stream.read() == b""
    late = own_service.connect().stream(reply)
    assert numbers_of(read_next(late, 1)) == [1]
    assert late.read() == b""


# --- who reads -----------------------------------------------------------------------------------


@pytest.mark.any_store
def test_who_hears_nothing_is_sent_a_comment_now_and_then(hinted, monkeypatch):
    monkeypatch.setattr(streaming, "COMMENT_SECONDS", 0.2)
    monkeypatch.setattr(streaming, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(edge_module, "REQUEST_SECONDS", 0.5)
    reply = hinted.submit(LATER)
    stream = hinted.connect().stream(reply, "?after=1")
    assert [stream.readline() for _ in range(10)] == [b":\n", b"\n"] * 5
    hinted.ask("POST", reply.headers["Location"] + "/cancel")
    assert b"event: done" in stream.read()


def test_who_reads_a_live_task_has_it_watched_and_who_reads_a_finished_one_has_not(
    hinted, read_all, eventually
):
    live, finished = hinted.submit(LATER), run_twice(hinted)
    hinted.connect().stream(live)
    read_all(hinted, finished)
    eventually(lambda: hinted.queue.is_watched(live.json["task_id"]))
    assert not hinted.queue.is_watched(finished.json["task_id"])


@pytest.mark.any_store
def test_who_goes_on_reading_has_the_task_watched_on_and_on(make_edge, monkeypatch, eventually):
    monkeypatch.setattr(lookout, "_WATCH_EVERY_SECONDS", 0.02)
    edge = make_edge()
    watched: list[Any] = []
    edge.metrics.store.watch = watched.append
    reply = edge.submit(LATER)
    stream = edge.connect().stream(reply)
    eventually(lambda: watched.count([reply.json["task_id"]]) >= 3)
    stream.close()


def test_all_who_read_one_task_cost_a_handful_of_reads(hinted, read_next):
    reply = hinted.submit(GOOD)
    streams = [hinted.connect().stream(reply) for _ in range(30)]
    for stream in streams:
        read_next(stream, 1)
    before = hinted.store.asked["log"]
    attempt = Attempt(hinted, reply)
    for stream in streams:
        read_next(stream, 1)
    attempt.write("a")
    for stream in streams:
        assert read_next(stream, 1)[0].data["delta"] == "a"
    assert hinted.store.asked["log"] - before <= 12


def test_who_goes_away_leaves_nothing_behind(hinted, read_next, eventually, monkeypatch):
    monkeypatch.setattr(streaming, "COMMENT_SECONDS", NEVER)
    reply = hinted.submit(LATER)
    connection = hinted.connect()
    read_next(connection.stream(reply), 1)
    eventually(lambda: hinted.lookout._of_events)
    connection.close()
    eventually(lambda: not hinted.lookout._of_events)


def number_of_tasks(edge):
    return edge.call(lambda: len(asyncio.all_tasks()))


@pytest.mark.any_store
@pytest.mark.parametrize("many", MANY)
def test_connections_that_are_reset_leave_nothing_behind(
    hinted, read_next, eventually, monkeypatch, many
):
    monkeypatch.setattr(streaming, "COMMENT_SECONDS", 0.2)
    monkeypatch.setattr(streaming, "_LOOK_SECONDS", 0.05)
    chance = random.Random(SEED)
    reply = hinted.submit(LATER)
    idle = number_of_tasks(hinted)
    for number in range(many):
        connection = hinted.connect()
        head = connection.head("GET", reply.headers["Location"] + "/events", {})
        when = ("before", "during", "after", "between two")[number % 4]
        connection.send(head[: chance.randrange(len(head))] if when == "before" else head)
        if when in ("after", "between two"):
            connection.socket.recv(chance.randrange(1, 400))
        if when == "between two":
            connection.send(head)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
    eventually(lambda: number_of_tasks(hinted) <= idle)
    assert not hinted.lookout._of_events
    assert numbers_of(read_next(hinted.connect().stream(reply), 1)) == [1]


@pytest.mark.any_store
def test_readers_that_never_read_hold_up_nobody_and_are_let_go(
    hinted, read_all, eventually, monkeypatch
):
    monkeypatch.setattr(streaming, "STALLED_SECONDS", 3.0)
    monkeypatch.setattr(streaming, "_LOOK_SECONDS", 0.05)
    reply = hinted.submit(GOOD)
    idle = number_of_tasks(hinted)
    for _ in range(200):
        hinted.connect(room_bytes=4_096).begin("GET", reply.headers["Location"] + "/events")
    attempt = Attempt(hinted, reply)
    attempt.write(*["x"] * 300, *["y" * 50_000] * 40)
    attempt.complete(b'{"output": ""}')
    events = read_all(hinted, reply)
    assert numbers_of(events) == list(range(1, 345))
    assert hinted.connect().submit(GOOD).status == 202
    eventually(lambda: number_of_tasks(hinted) <= idle)
