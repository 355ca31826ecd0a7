"""What happens at the same moment: whatever was answered stands, and nothing is there twice."""

import json
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from domain.ports import Completed
from domain.task import TaskStatus

LIST = "/api/v1/task"
SUBMIT = "/api/v1/task/inference"
GOOD = {"input": "x"}
SEED = 20_261_125
CLIENTS = 8
ABOUT_20_MS = [0, 0.005, 0.02]  # how long a task takes
AT_ONCE = 5  # tasks that a client submits before it goes back to the first of them


def everything(edge):
    """All tasks, by id."""
    found: dict[str, Any] = {}
    cursor = ""
    while cursor is not None:
        page = edge.ask("GET", f"{LIST}?limit=100&include=result{cursor}").json
        found |= {task["task_id"]: task for task in page["data"]}
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    return found


def is_idle(edge):
    return edge.ask("GET", "/api/v1/queue").json["by_status"] == {"pending": 0, "running": 0}


def no_errors(logged):
    return [one for one in logged if one["log_level"] in {"error", "critical"}] == []


def end_early(edge, number, method, action):
    """Submit so many short tasks, and ask for the end of each at once: ids, and the answers."""

    def play(client):
        random, connection = Random(f"{SEED}/{client}"), edge.connect()
        answers: dict[str, Any] = {}
        while len(answers) < number / CLIENTS:
            bodies = [
                GOOD | {"options": {"delay_seconds": random.choice(ABOUT_20_MS)}}
                for _ in range(AT_ONCE)
            ]
            accepted = [connection.submit(body).json["task_id"] for body in bodies]
            for task_id in random.sample(accepted, AT_ONCE):
                answers[task_id] = connection.ask(method, f"{LIST}/{task_id}{action}")
        return answers

    with ThreadPoolExecutor(CLIENTS) as pool:
        return {
            key: one for played in pool.map(play, range(CLIENTS)) for key, one in played.items()
        }


# --- cancel ------------------------------------------------------------------------------------


def cancel_around_the_start(service, logged, eventually, number):
    replies = end_early(service, number, "POST", "/cancel")
    assert {reply.status for reply in replies.values()} == {200}
    eventually(lambda: is_idle(service))
    tasks = everything(service)
    assert tasks.keys() == replies.keys()
    started = {event["task_id"] for event in logged if event["event"] == "task_started"}
    for task_id, reply in replies.items():
        task, told = tasks[task_id], reply.json
        assert task["attempt"] <= 1
        if told["done"]:
            assert task == {name: told[name] for name in task}
        else:
            assert (task["status"], task["result"]) == ("cancelled", None)
        assert (task_id in started) == (task["attempt"] == 1)
    told = {reply.json["status"] for reply in replies.values()}
    assert told == {"cancelled", "running", "completed"}, "this was no race"
    assert no_errors(logged)


def test_whatever_a_cancel_around_the_start_is_answered_stands(own_service, logged, eventually):
    cancel_around_the_start(own_service, logged, eventually, 120)


@pytest.mark.any_store
def test_two_thousand_cancels_around_the_start_leave_nothing_behind(
    own_service, logged, eventually
):
    cancel_around_the_start(own_service, logged, eventually, 2_000)


# --- delete ------------------------------------------------------------------------------------


def test_what_is_deleted_around_its_start_or_end_is_gone(own_service, logged, eventually):
    replies = end_early(own_service, 120, "DELETE", "")
    assert {reply.status for reply in replies.values()} == {204}
    eventually(lambda: is_idle(own_service))
    assert everything(own_service) == {}
    for _ in range(2 * 8):  # every slot is free again
        assert own_service.submit(GOOD, Prefer="wait=30").json["status"] == "completed"
    assert no_errors(logged)


def test_of_a_delete_and_a_result_at_once_both_are_taken_and_the_task_is_gone(make_edge):
    edge, random = make_edge(), Random(SEED)
    keys = [f"key-{number}" for number in range(60)]
    ids = [edge.submit(GOOD, Idempotency_Key=key).json["task_id"] for key in keys]
    claims = edge.do(edge.queue.claim("worker", {"echo": len(keys)}, 30.0))
    waiting = [edge.connect() for _ in range(5)]
    for connection, task_id in zip(waiting, ids, strict=False):
        connection.begin("GET", f"{LIST}/{task_id}", Prefer="wait=30")

    def delete(task_ids):
        connection = edge.connect()
        return [connection.ask("DELETE", f"{LIST}/{task_id}").status for task_id in task_ids]

    def settle(fences):
        outcomes = [Completed(fence, b'{"output": "x"}', None) for fence in fences]
        return [edge.do(edge.queue.settle([outcome]))[0] for outcome in outcomes]

    shuffled = random.sample(ids, len(ids))
    with ThreadPoolExecutor(4) as pool:
        settling = pool.submit(settle, [claim.fence for claim in claims])
        # Two at a time want the same one away.
        deleting = [pool.submit(delete, shuffled) for _ in range(2)]
    assert set(settling.result()) <= {TaskStatus.COMPLETED, None}
    assert {*zip(*(one.result() for one in deleting), strict=True)} <= {(204, 404), (404, 204)}
    for connection in waiting:
        reply = connection.reply()
        assert reply.status == 404 or reply.json["status"] == "completed"
    assert everything(edge) == {}
    assert edge.ask("GET", "/api/v1/health").json["tasks_count"] == 0
    assert edge.submit(GOOD, Idempotency_Key=keys[0]).headers["Idempotency-Replayed"] is None


# --- duplicates ----------------------------------------------------------------------------------


def send_and_reset(node, key, random):
    """Begin to submit, and reset the connection: somewhere on the way, or before the answer."""
    connection, body = node.connect(), json.dumps(GOOD).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    request = connection.head("POST", SUBMIT, headers | {"Idempotency-Key": key}) + body
    connection.send(request[: random.choice([len(request), random.randrange(len(request))])])
    linger_not_at_all = struct.pack("ii", 1, 0)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not_at_all)
    connection.close()


def send_duplicates(nodes, keys):
    """Send each submit thirty times, to any of these nodes; every other one is cut off."""

    def play(client):
        random, told = Random(f"{SEED}/{client}"), []
        for key in random.sample(keys, len(keys)):
            node = random.choice(nodes)
            if random.random() < 0.5:
                send_and_reset(node, key, random)
            else:
                told.append((key, node.connect().submit(GOOD, Idempotency_Key=key)))
        return told

    with ThreadPoolExecutor(30) as pool:
        return [reply for told in pool.map(play, range(30)) for reply in told]


def check_duplicates(nodes, keys, told, logged):
    """Each key made exactly one task, and everybody heard of that one."""
    last = {key: nodes[-1].submit(GOOD, Idempotency_Key=key) for key in keys}
    made = {key: reply.json["task_id"] for key, reply in last.items()}
    for key, reply in told:
        assert (reply.status, reply.json["task_id"]) == (202, made[key])
    first = [key for key, reply in told if reply.headers["Idempotency-Replayed"] is None]
    assert len(first) == len(set(first))
    for node in nodes:
        assert everything(node).keys() == set(made.values())
    assert no_errors(logged)


def test_duplicates_whose_connections_are_reset_make_one_task(make_edge, logged):
    nodes, keys = [make_edge()], [f"key-{number}" for number in range(10)]
    check_duplicates(nodes, keys, send_duplicates(nodes, keys), logged)


def test_duplicates_to_two_nodes_make_one_task(two_nodes, logged):
    keys = [f"key-{number}" for number in range(10)]
    check_duplicates(two_nodes, keys, send_duplicates(two_nodes, keys), logged)


# --- lists -------------------------------------------------------------------------------------


@contextmanager
def changes(edge):
    """Meanwhile tasks come, are cancelled, and go, as fast as they can: gives how many did."""
    stop, done, random = threading.Event(), [], Random(SEED)

    def meddle():
        connection, others = edge.connect(), []
        while not stop.is_set():
            others.append(connection.submit(GOOD).json["task_id"])
            method, action = random.choice([("POST", "/cancel"), ("DELETE", "")])
            done.append(connection.ask(method, f"{LIST}/{random.choice(others)}{action}"))

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def test_a_walk_amid_changes_meets_what_does_not_change_once(make_edge, eventually):
    edge = make_edge()
    standing = [edge.submit(GOOD).json["task_id"] for _ in range(40)]
    with changes(edge) as done:
        for order in ("asc", "desc"):
            before, found, cursor = len(done), [], ""
            while cursor is not None:
                page = edge.ask("GET", f"{LIST}?limit=7&order={order}{cursor}").json
                found += [task["task_id"] for task in page["data"]]
                cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
            assert len(found) == len(set(found))
            assert {*standing} <= {*found}
            eventually(lambda before=before: len(done) > before)
    assert {reply.status for reply in done} <= {200, 204, 404}
