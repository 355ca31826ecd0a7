"""Requests that wait for the end of a task (`Prefer: wait`)."""

import asyncio
from typing import Any

import pytest

from domain.errors import StoreUnavailable
from domain.inference import Routes
from domain.ports import Cancelled
from domain.service import Caller, TaskService
from domain.task import ANONYMOUS
from entrypoints import bootstrap
from entrypoints.bootstrap import Service
from entrypoints.http import edge as edge_module
from entrypoints.http.head import seconds_to_wait
from entrypoints.http.waiting import Waiting

SUBMIT = "/api/v1/task/inference"
GOOD = {"input": "x"}
NEVER = 3_600.0
ANYBODY = Caller(ANONYMOUS)


@pytest.fixture
def hinted(make_edge):
    """An edge that learns of an end by the hint alone."""
    return make_edge(worker={"poll_seconds": NEVER})


@pytest.fixture
def waits(eventually):
    """Sends a request, and gives its connection once somebody waits for the task."""

    def begin(edge, method, path, body=None, **headers):
        connection = edge.connect()
        connection.begin(method, path, body, **headers)
        eventually(lambda: edge.lookout._of_ends)
        return connection

    return begin


def test_a_get_that_waits_is_answered_when_the_task_ends(hinted, waits):
    accepted = hinted.submit(GOOD)
    connection = waits(hinted, "GET", accepted.headers["Location"], Prefer="wait=60")
    hinted.complete(accepted)
    reply = connection.reply()
    assert (reply.status, reply.json["status"]) == (200, "completed")
    assert reply.headers["Preference-Applied"] == "wait=60"
    assert reply.headers["ETag"]


def test_a_submit_that_waits_is_answered_with_the_whole_task(own_service):
    reply = own_service.submit(GOOD, Prefer="wait=30")
    assert (reply.status, reply.json["done"]) == (200, True)
    assert reply.json["result"] == {"output": "Processed input: x"}
    assert reply.headers["Preference-Applied"] == "wait=30"
    assert own_service.ask("GET", reply.headers["Location"]).json == reply.json


def test_an_end_of_which_no_hint_tells_is_found_by_asking(make_edge, waits):
    edge = make_edge(worker={"poll_seconds": 0.02})
    edge.store.is_mute = True
    accepted = edge.submit(GOOD)
    connection = waits(edge, "GET", accepted.headers["Location"], Prefer="wait=60")
    edge.complete(accepted)
    assert connection.reply().json["status"] == "completed"


@pytest.mark.any_store
def test_after_the_time_asked_for_the_answer_is_the_task_as_it_is(hinted, waits):
    accepted = hinted.submit(GOOD)
    getting = waits(hinted, "GET", accepted.headers["Location"], Prefer="wait=2")
    submitting = hinted.connect()
    submitting.begin("POST", SUBMIT, GOOD, Prefer="wait=2")
    hinted.claim(accepted)
    got, submitted = getting.reply(), submitting.reply()
    assert (got.status, got.json["status"]) == (200, "running")
    assert submitted.status == 202
    assert submitted.json.keys() == {"task_id", "status"}
    assert submitted.headers["Location"].endswith(submitted.json["task_id"])
    for reply in (got, submitted):
        assert reply.headers["Preference-Applied"] == "wait=2"


@pytest.mark.any_store
def test_a_wait_may_be_longer_than_other_requests_may_take(make_edge, monkeypatch):
    monkeypatch.setattr(edge_module, "REQUEST_SECONDS", 1.0)
    reply = make_edge().submit(GOOD, Prefer="wait=2")
    assert (reply.status, reply.json["status"]) == (202, "pending")


def test_what_has_ended_or_is_not_there_is_answered_at_once(hinted):
    accepted = hinted.submit(GOOD)
    hinted.complete(accepted)
    ended = hinted.ask("GET", accepted.headers["Location"], Prefer="wait=600")
    assert (ended.json["done"], ended.headers["Preference-Applied"]) == (True, "wait=60")
    assert hinted.ask("GET", "/api/v1/task/x", Prefer="wait=60").code == "task_not_found"


def test_a_hint_for_nothing_ends_no_wait(hinted, waits):
    accepted = hinted.submit(GOOD)
    connection = waits(hinted, "GET", accepted.headers["Location"], Prefer="wait=60")
    for _ in range(3):
        hinted.call(hinted.lookout.tell_end, [accepted.json["task_id"], "another"])
    hinted.complete(accepted)
    assert connection.reply().json["status"] == "completed"


def test_a_task_that_is_cancelled_or_deleted_is_waited_for_no_longer(hinted, waits):
    accepted = hinted.submit(GOOD)
    connection = waits(hinted, "GET", accepted.headers["Location"], Prefer="wait=60")
    hinted.ask("POST", accepted.headers["Location"] + "/cancel")
    assert connection.reply().json["status"] == "cancelled"
    accepted = hinted.submit(GOOD)
    connection = waits(hinted, "GET", accepted.headers["Location"], Prefer="wait=60")
    hinted.ask("DELETE", accepted.headers["Location"])
    assert connection.reply().code == "task_not_found"


def test_a_client_that_goes_away_is_waited_for_no_longer(hinted, waits, eventually):
    accepted = hinted.submit(GOOD)
    waits(hinted, "GET", accepted.headers["Location"], Prefer="wait=60").close()
    eventually(lambda: not hinted.lookout._of_ends)


def test_a_store_that_fails_ends_the_wait_and_the_next_one_is_served(hinted, waits):
    accepted = hinted.submit(GOOD)
    connection = waits(hinted, "GET", accepted.headers["Location"], Prefer="wait=60")
    hinted.store.fault = StoreUnavailable("gone")
    hinted.call(hinted.lookout.tell_end, [accepted.json["task_id"]])
    assert connection.reply().code == "store_unavailable"
    hinted.store.fault = None
    hinted.complete(accepted)
    reply = hinted.ask("GET", accepted.headers["Location"], Prefer="wait=60")
    assert reply.json["status"] == "completed"


def test_a_failure_is_not_shared_with_those_who_come_after_it(hinted):
    task_id = hinted.submit(GOOD).json["task_id"]

    async def fail_one_of_three():
        gone = asyncio.get_running_loop().create_future()
        first = asyncio.ensure_future(hinted.waiting.until_ended(ANYBODY, task_id, NEVER, gone))
        await hinted.waiting.until_ended(ANYBODY, task_id, 0.01, gone)
        hinted.store.fault = StoreUnavailable("gone")
        with pytest.raises(StoreUnavailable):
            await hinted.waiting.until_ended(ANYBODY, task_id, 0.1, gone)
        hinted.store.fault = None
        third = await hinted.waiting.until_ended(ANYBODY, task_id, 0.01, gone)
        first.cancel()
        return third

    assert hinted.do(fail_one_of_three()).status == "pending"


def test_a_service_that_drains_lets_nobody_wait(own_service):
    body = GOOD | {"delay_seconds": NEVER}
    accepted = own_service.submit(body)
    connection = own_service.connect()
    connection.begin("GET", accepted.headers["Location"], Prefer="wait=60")
    own_service.do(own_service.service.drain(0))
    assert connection.reply().json["status"] == "pending"
    late = own_service.ask("GET", accepted.headers["Location"], Prefer="wait=60")
    assert late.json["status"] == "pending"


@pytest.fixture
def slow(hinted):
    """A service whose store takes its time to tell of a task, and the wait of somebody for one."""
    store = StoreOfOldReads(hinted.queue)
    tasks = TaskService(
        store, Routes({}, "echo"), hinted.tasks.limits, hinted.tasks.defaults, lambda: "unused"
    )
    waiting = Waiting(tasks, hinted.lookout)
    task_id = hinted.submit(GOOD).json["task_id"]

    async def begin():
        gone = asyncio.get_running_loop().create_future()
        wait = asyncio.ensure_future(waiting.until_ended(ANYBODY, task_id, NEVER, gone))
        await store.has_read.wait()
        return wait

    return store, Service(tasks, hinted.lookout, hinted.readiness, hinted.metrics, None), begin


def test_a_drain_goes_on_until_all_who_waited_are_answered(hinted, slow):
    store, service, begin = slow

    async def drain():
        wait = await begin()
        draining = asyncio.ensure_future(service.drain(NEVER))
        done, _ = await asyncio.wait({draining}, timeout=0.05)
        assert not done
        store.may_answer.set()
        await draining
        return wait

    assert hinted.do(drain()).result().status == "pending"


def test_a_drain_waits_for_no_store_beyond_its_time(hinted, slow, monkeypatch):
    monkeypatch.setattr(bootstrap, "_LAST_LOOKS_SECONDS", 0.01)
    _, service, begin = slow

    async def drain():
        wait = await begin()
        await service.drain(0)
        assert not wait.done()
        wait.cancel()

    hinted.do(drain())


# --- many at once ------------------------------------------------------------------------------


async def wait_many(edge, task_id, number):
    gone = asyncio.get_running_loop().create_future()
    waits = [edge.waiting.until_ended(ANYBODY, task_id, NEVER, gone) for _ in range(number)]
    gathering = asyncio.gather(*waits)
    await asyncio.sleep(0)
    return gathering


async def answers_of(gathering):
    return await gathering


@pytest.mark.any_store
def test_a_thousand_who_wait_for_one_task_cost_a_handful_of_reads(hinted):
    accepted = hinted.submit(GOOD)
    before = hinted.store.asked.copy()
    gathering = hinted.do(wait_many(hinted, accepted.json["task_id"], 1_000))
    hinted.complete(accepted)
    answers = hinted.do(answers_of(gathering))
    assert {answer.status for answer in answers} == {"completed"}
    spent = hinted.store.asked - before
    assert spent["get"] <= 3
    assert spent.total() <= 6
    assert not hinted.waiting._watches
    assert not hinted.lookout._of_ends


@pytest.mark.any_store
def test_all_tasks_that_are_waited_for_are_asked_about_together(make_edge, eventually):
    edge = make_edge(worker={"poll_seconds": 0.05})
    edge.store.is_mute = True
    accepted = [edge.submit(GOOD) for _ in range(50)]
    waits = [edge.do(wait_many(edge, reply.json["task_id"], 1)) for reply in accepted]
    before = edge.store.asked["standings"]
    eventually(lambda: edge.store.asked["standings"] >= before + 2)
    reads = edge.store.asked["get"]
    for reply in accepted:
        edge.ask("POST", reply.headers["Location"] + "/cancel")
    assert all(edge.do(answers_of(wait))[0].status == "cancelled" for wait in waits)
    assert reads <= len(accepted)
    assert edge.store.asked["standings"] < len(accepted)


class StoreOfOldReads:
    """Its reads tell how things were when they began."""

    def __init__(self, store):
        self._store = store
        self.has_read = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def get(self, task_id, owner):
        task = await self._store.get(task_id, owner)
        self.has_read.set()
        await self.may_answer.wait()
        return task

    def __getattr__(self, name):
        return getattr(self._store, name)


def test_an_end_while_the_task_is_read_is_not_missed(hinted):
    accepted = hinted.submit(GOOD)
    claim = hinted.claim(accepted)

    async def wait_while_it_ends():
        store = StoreOfOldReads(hinted.queue)
        tasks = TaskService(
            store, Routes({}, "echo"), hinted.tasks.limits, hinted.tasks.defaults, lambda: "unused"
        )
        waiting = Waiting(tasks, hinted.lookout)
        gone = asyncio.get_running_loop().create_future()
        wait = asyncio.ensure_future(waiting.until_ended(ANYBODY, claim.task.id, NEVER, gone))
        await store.has_read.wait()
        await hinted.queue.request_cancel(claim.task.id, None)
        await hinted.queue.settle([Cancelled(claim.fence)])
        store.may_answer.set()
        async with asyncio.timeout(20):
            return await wait

    assert hinted.do(wait_while_it_ends()).status == "cancelled"


# --- the header ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"wait=5", 5),
        (b"Wait = 5", 5),
        (b"wait=0", 0),
        (b"wait=007", 7),
        (b"wait=60", 60),
        (b"wait=61", 60),
        (b"wait=" + b"9" * 10_000, 60),
        (b"respond-async, wait=5", 5),
        (b"respond-async, return=minimal; a=b, wait=5; c=d, x", 5),
        (b'a="wait=9, wait=8", wait=5', 5),
        (b'a="\\", wait=9", wait=5', 5),
        (b"wait=5, wait=6", 5),
        (b"wait=x, wait=6", None),
        *[(text, None) for text in [b"", b"wait", b"wait=", b"wait=-1", b"wait=1.5", b"wait=1s"]],
        *[
            (text, None)
            for text in [b"waits=5", b"a; wait=5", b'a="wait=5', b"=", b",;=,", b"\xff"]
        ],
    ],
)
def test_a_preference_is_read_as_rfc_7240_says(header, seconds):
    scope: Any = {"state": {"headers": {b"prefer": header}}}
    assert seconds_to_wait(scope) == seconds


def test_without_the_preference_nothing_is_applied(edge):
    for headers in ({}, {"Prefer": "wait=soon"}, {"Prefer": "respond-async"}):
        reply = edge.submit(GOOD, **headers)
        assert (reply.status, reply.headers["Preference-Applied"]) == (202, None)
