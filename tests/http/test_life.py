"""The life of a task: when it may start, how it is ended, tried again, and looked at."""

from datetime import datetime, timedelta

import pytest

from domain.inference import Usage
from domain.ports import Completed, HandedBack, Retry
from domain.task import TaskError, TaskStatus
from entrypoints.http import backlog as backlog_module

GOOD = {"input": "x"}
SPENT = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
NOTHING = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
SOON = "2100-01-02T03:04:05.678901+02:00"


def cancel(edge, reply):
    return edge.ask("POST", reply.headers["Location"] + "/cancel")


def retry(edge, reply):
    return edge.ask("POST", reply.headers["Location"] + "/retry")


def look(edge, reply):
    return edge.ask("GET", reply.headers["Location"]).json


def moment(text):
    return datetime.fromisoformat(text)


# --- when it may start -------------------------------------------------------------------------


def test_a_higher_priority_stands_further_ahead(make_edge):
    edge = make_edge()
    replies = {step: edge.submit(GOOD | {"priority": step}) for step in (0, -10, 10, 3.0)}
    tasks = {step: look(edge, reply) for step, reply in replies.items()}
    places = {step: task["queue_position"] for step, task in tasks.items()}
    assert places == {10: 1, 3: 2, 0: 3, -10: 4}
    assert [task["priority"] for task in tasks.values()] == [0, -10, 10, 3]


def test_a_delayed_task_waits_outside_of_the_queue(make_edge):
    edge = make_edge()
    task = look(edge, edge.submit(GOOD | {"delay_seconds": 3_000_000_000}))
    assert (task["status"], task["queue_position"]) == ("pending", None)
    waits = moment(task["not_before"]) - moment(task["created_at"])
    assert waits == timedelta(seconds=3_000_000_000)
    assert edge.do(edge.queue.claim("worker", {"echo": 10}, 30.0)) == []


def test_a_task_may_name_the_time_before_which_it_does_not_start(edge):
    task = look(edge, edge.submit(GOOD | {"run_at": SOON, "delay_seconds": None}))
    assert task["not_before"] == "2100-01-02T01:04:05.678901Z"
    assert task["queue_position"] is None


@pytest.mark.parametrize(
    "run_at", ["1970-01-01T00:00:00+23:59", "9998-12-31T23:59:59.999999-23:59"]
)
def test_the_outermost_times_are_taken_and_shown(edge, run_at):
    task = look(edge, edge.submit(GOOD | {"run_at": run_at}))
    assert moment(task["not_before"]) == moment(run_at)


def test_what_bounds_a_task_is_taken_at_its_bounds(edge):
    longest = {"delay_seconds": 3_000_000_000, "deadline_seconds": 3_000_000_000}
    for priority in (-10, 10):
        reply = edge.submit(GOOD | longest | {"priority": priority})
        assert look(edge, reply)["done"] is False


def test_a_task_that_did_not_end_before_its_deadline_fails(make_edge, eventually):
    edge = make_edge()
    reply = edge.submit(GOOD | {"deadline_seconds": 1e-6})
    eventually(lambda: edge.do(edge.queue.expire(10)))
    task = look(edge, reply)
    assert (task["status"], task["error"]["code"]) == ("failed", "deadline_exceeded")


# --- cancel ------------------------------------------------------------------------------------


def test_a_pending_task_is_cancelled_at_once(edge):
    accepted = edge.submit(GOOD)
    reply = cancel(edge, accepted)
    assert (reply.status, reply.json["status"]) == (200, "cancelled")
    assert (reply.json["error"], reply.json["attempts"]) == (None, [])
    assert reply.json["cancel_requested_at"] == reply.json["completed_at"]
    assert reply.json == look(edge, accepted)


def test_a_running_task_is_asked_to_stop_and_is_cancelled_whatever_comes_of_it(edge):
    accepted = edge.submit(GOOD)
    claim = edge.claim(accepted)
    asked = cancel(edge, accepted).json
    assert (asked["status"], asked["done"]) == ("running", False)
    assert asked["cancel_requested_at"] is not None
    edge.settle(Completed(claim.fence, b'{"output": 1}', None), TaskStatus.CANCELLED)
    task = look(edge, accepted)
    assert (task["status"], task["result"], task["error"]) == ("cancelled", None, None)
    assert task["cancel_requested_at"] == asked["cancel_requested_at"]
    assert task["attempts"][0]["outcome"] == "cancelled"


def test_cancelling_again_or_what_has_ended_changes_nothing(edge):
    cancelled, completed = edge.submit(GOOD), edge.submit(GOOD)
    edge.complete(completed)
    cancel(edge, cancelled)
    for accepted in (cancelled, completed):
        task = look(edge, accepted)
        reply = cancel(edge, accepted)
        assert (reply.status, reply.json) == (200, task)


# --- retry -------------------------------------------------------------------------------------


def test_a_failed_task_is_tried_again_as_a_new_one(edge):
    body = {
        "input": [{"role": "user", "content": "hi"}],
        "options": {"model": "m", "stop": ["a"]},
        "priority": 2,
        "max_attempts": 1,
        "timeout_seconds": 7,
        "metadata": {"k": "v"},
    }
    failed = edge.submit(body)
    edge.fail(failed)
    old = look(edge, failed)
    reply = retry(edge, failed)
    assert reply.status == 202
    assert reply.json == {
        "task_id": reply.json["task_id"],
        "status": "pending",
        "retry_of": old["task_id"],
    }
    assert reply.headers["Location"] == "/api/v1/task/" + reply.json["task_id"]
    assert 1 <= int(reply.headers["Retry-After"]) <= 60
    new = look(edge, reply)
    same = ("model", "priority", "max_attempts", "timeout_seconds", "metadata", "executor")
    assert [new[name] for name in same] == [old[name] for name in same]
    assert (new["retry_of"], new["attempt"], old["retry_of"]) == (old["task_id"], 0, None)
    assert look(edge, failed) == old
    first, second = edge.do(payloads(edge, old, new))
    assert first == second


async def payloads(edge, *tasks):
    return [await edge.queue.payload(task["task_id"], None) for task in tasks]


def test_a_cancelled_task_is_tried_again_too(edge):
    accepted = edge.submit(GOOD)
    cancel(edge, accepted)
    assert retry(edge, accepted).status == 202


def test_a_task_that_is_neither_failed_nor_cancelled_is_not_retryable(edge):
    accepted = edge.submit(GOOD)
    for status in ("pending", "completed"):
        reply = retry(edge, accepted)
        assert (reply.status, reply.code) == (409, "not_retryable")
        assert status in reply.json["detail"]
        if status == "pending":
            edge.complete(accepted)


def test_a_retry_finds_no_room_where_a_submit_does_not(make_edge):
    edge = make_edge(inference={"max_pending_tasks": 1})
    failed = edge.submit(GOOD)
    edge.fail(failed)
    edge.submit(GOOD)
    reply = retry(edge, failed)
    assert (reply.status, reply.code) == (429, "queue_full")


# --- delete ------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["pending", "running", "completed"])
def test_a_task_is_deleted_in_any_state(edge, state):
    accepted = edge.submit(GOOD)
    if state == "running":
        edge.claim(accepted)
    if state == "completed":
        edge.complete(accepted)
    reply = edge.ask("DELETE", accepted.headers["Location"])
    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (204, b"", None)
    for method in ("GET", "DELETE"):
        assert edge.ask(method, accepted.headers["Location"]).code == "task_not_found"


# --- while the service stops -------------------------------------------------------------------


def test_a_draining_service_makes_no_task_and_does_everything_else(make_edge):
    edge = make_edge()
    failed = edge.submit(GOOD)
    edge.fail(failed)
    pending = edge.submit(GOOD)
    edge.call(edge.tasks.stop_accepting)
    for reply in (retry(edge, failed), edge.submit(GOOD, Idempotency_Key="k")):
        assert (reply.status, reply.code) == (503, "draining")
        assert 1 <= int(reply.headers["Retry-After"]) <= 60
    assert cancel(edge, pending).json["status"] == "cancelled"
    assert edge.ask("GET", "/api/v1/task").status == 200
    assert edge.ask("GET", "/api/v1/queue").status == 200
    assert edge.ask("DELETE", pending.headers["Location"]).status == 204


# --- what it shows -----------------------------------------------------------------------------


def test_every_attempt_stays_in_the_history(edge):
    accepted = edge.submit(GOOD)
    fence = edge.claim(accepted).fence
    running = look(edge, accepted)["attempts"]
    assert [(one["number"], one["ended_at"], one["outcome"]) for one in running] == [
        (1, None, None)
    ]
    error = TaskError("executor_unavailable", "busy", retryable=True)
    edge.settle(Retry(fence, error, 0.0), TaskStatus.PENDING)
    assert look(edge, accepted)["started_at"] is None
    edge.settle(HandedBack(edge.claim(accepted).fence), TaskStatus.PENDING)
    edge.complete(accepted)
    task = look(edge, accepted)
    assert [list(one.values())[-2:] for one in task["attempts"]] == [
        ["failed", "executor_unavailable"],
        ["handed_back", None],
        ["completed", None],
    ]
    assert [one["number"] for one in task["attempts"]] == [1, 2, 3]
    assert {one["executor"] for one in task["attempts"]} == {"echo"}
    assert task["attempts"][-1]["started_at"] == task["started_at"]
    assert task["attempts"][-1]["ended_at"] == task["completed_at"]


def test_a_finished_task_tells_when_it_may_be_removed(own_service):
    reply = own_service.submit(GOOD, Prefer="wait=30")
    kept = moment(reply.json["expires_at"]) - moment(reply.json["completed_at"])
    assert kept == timedelta(hours=24)


# --- ETag --------------------------------------------------------------------------------------


@pytest.fixture
def finished(edge):
    accepted = edge.submit(GOOD)
    edge.complete(accepted)
    return edge.ask("GET", accepted.headers["Location"]), accepted.headers["Location"]


def test_an_answer_that_did_not_change_has_the_same_tag(edge, finished):
    reply, location = finished
    again = edge.ask("GET", location)
    assert (again.body, again.headers["ETag"]) == (reply.body, reply.headers["ETag"])
    assert reply.headers["ETag"].strip('"').isalnum()


def test_an_answer_that_changed_has_another_tag(edge):
    accepted = edge.submit(GOOD)
    first = edge.ask("GET", accepted.headers["Location"])
    edge.complete(accepted)
    second = edge.ask("GET", accepted.headers["Location"], If_None_Match=first.headers["ETag"])
    assert second.status == 200
    assert second.headers["ETag"] != first.headers["ETag"]


@pytest.mark.parametrize("known", ["{}", "W/{}", '"a", W/{} , "b"', "*", ['"a"', "{}"]])
def test_what_the_client_has_already_is_not_sent_again(edge, finished, known):
    reply, location = finished
    tag = reply.headers["ETag"]
    sent = [one.format(tag) for one in known] if isinstance(known, list) else known.format(tag)
    same = edge.ask("GET", location, If_None_Match=sent)
    assert (same.status, same.body) == (304, b"")
    assert same.headers["ETag"] == tag
    assert same.headers["Content-Length"] is None


@pytest.mark.parametrize("known", ['"a"', "", "W/", '"', "x*", "a{}", "'{}'"])
def test_anything_else_is_sent(edge, finished, known):
    reply, location = finished
    other = known.format(reply.headers["ETag"].strip('"'))
    assert edge.ask("GET", location, If_None_Match=other).body == reply.body


# --- when to come back -------------------------------------------------------------------------


def test_when_to_come_back_follows_from_how_long_tasks_wait(make_edge, monkeypatch):
    monkeypatch.setattr(backlog_module, "READ_EVERY_SECONDS", 0.0)
    edge = make_edge(inference={"max_pending_tasks": 2})
    assert edge.submit(GOOD).headers["Retry-After"] == "1"
    edge.store.backlog = 17.2
    assert edge.submit(GOOD).headers["Retry-After"] == "18"
    full = edge.submit(GOOD)
    assert (full.code, full.headers["Retry-After"]) == ("queue_full", "18")
    edge.store.backlog = 1e9
    assert edge.submit(GOOD).headers["Retry-After"] == "60"
    edge.call(edge.tasks.stop_accepting)
    edge.store.backlog = 2.0
    draining = edge.submit(GOOD)
    assert (draining.code, draining.headers["Retry-After"]) == ("draining", "2")


def test_the_queue_is_looked_at_now_and_then_only(edge):
    edge.submit(GOOD)
    before = edge.store.asked["backlog_seconds"]
    for _ in range(100):
        edge.submit(GOOD)
    assert edge.store.asked["backlog_seconds"] - before < 50


# --- the queue ---------------------------------------------------------------------------------


def test_the_queue_is_counted_by_status_executor_and_model(make_edge):
    edge = make_edge()
    edge.do(edge.queue.announce("worker", ["echo"], 60.0))
    edge.complete(edge.submit(GOOD), usage=Usage(**SPENT))
    edge.claim(edge.submit(GOOD | {"options": {"model": "m"}}))
    edge.submit(GOOD)
    edge.submit(GOOD | {"options": {"model": "llama-3"}})
    queue = edge.ask("GET", "/api/v1/queue").json
    assert queue.pop("oldest_pending_seconds") >= 0
    assert queue == {
        "by_status": {"pending": 2, "running": 1},
        "by_executor": {
            "echo": {"pending": 1, "running": 1, "workers": 1, "usage": SPENT},
            "llama": {"pending": 1, "running": 0, "workers": 0, "usage": NOTHING},
        },
        "by_model": {
            "": {"pending": 1, "running": 0, "usage": SPENT},
            "llama-3": {"pending": 1, "running": 0, "usage": NOTHING},
            "m": {"pending": 0, "running": 1, "usage": NOTHING},
        },
        "unserved": ["llama"],
        "limits": {"max_pending_tasks": 10_000, "max_concurrent_tasks": 8},
    }


def test_an_empty_queue_has_no_oldest_task(make_edge):
    queue = make_edge().ask("GET", "/api/v1/queue").json
    assert queue["by_status"] == {"pending": 0, "running": 0}
    assert (queue["oldest_pending_seconds"], queue["by_model"]) == (None, {})
