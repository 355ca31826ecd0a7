"""Whose task is whose: every operation of the OpenAPI document, with each kind of key."""

import hashlib
import json

import pytest

from entrypoints.http.openapi import openapi_document
from settings.schema import ApiKey, Settings

DOCUMENT = json.loads(openapi_document(Settings()))
OPERATIONS = [
    (method.upper(), path, operation.get("security") == [])
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
GUARDED = [(method, path) for method, path, is_open in OPERATIONS if not is_open]
OPEN = [(method, path) for method, path, is_open in OPERATIONS if is_open]
OF_A_TASK = [(method, path) for method, path in GUARDED if "{task_id}" in path]
ALICE, BOB, ROOT = ({"X_API_Key": f"key of {name}"} for name in ("alice", "bob", "root"))
NO_KEY: dict[str, str] = {}
WRONG_KEY = {"Authorization": "Bearer nobody's"}


def api_key(name, **more):
    return ApiKey(name=name, sha256=hashlib.sha256(f"key of {name}".encode()).hexdigest(), **more)


@pytest.fixture
def edge(make_edge):
    keys = [api_key("alice"), api_key("bob"), api_key("root", admin=True)]
    return make_edge(security={"api_keys": keys})


@pytest.fixture
def task_id(edge):
    """A task of Alice's."""
    task_id = edge.submit({"input": "hers", "options": {"model": "her-own"}}, **ALICE).json[
        "task_id"
    ]
    assert edge.submit({"input": "his"}, **BOB).status == 202
    return task_id


def ask(edge, method, path, task_id, key):
    bodies = {"inference": {"input": "x"}, "batch": {"tasks": [{"input": "x"}]}}
    body = bodies.get(path.rpartition("/")[2])
    return edge.ask(method, path.replace("{task_id}", task_id), body, **key)


def as_alice_sees_it(edge, task_id):
    return edge.ask("GET", f"/api/v1/task/{task_id}", **ALICE).json


@pytest.mark.parametrize("key", [NO_KEY, WRONG_KEY], ids=["no key", "wrong key"])
@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_a_key_that_is_known_nothing_is_answered_or_done(edge, task_id, method, path, key):
    before, tasks = as_alice_sees_it(edge, task_id), edge.ask("GET", "/api/v1/health").json
    refused = ask(edge, method, path, task_id, key)
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert as_alice_sees_it(edge, task_id) == before
    assert edge.ask("GET", "/api/v1/health").json == tasks


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_what_needs_no_key_tells_of_no_task(edge, task_id, method, path):
    answer = ask(edge, method, path, task_id, NO_KEY)
    assert answer.status == 200
    assert task_id not in answer.body.decode()


@pytest.mark.parametrize(("method", "path"), OF_A_TASK)
def test_the_task_of_somebody_else_is_not_there(edge, task_id, method, path):
    before = as_alice_sees_it(edge, task_id)
    foreign = ask(edge, method, path, task_id, BOB)
    unknown = ask(edge, method, path, "01a210ee-32d2-74a8-a5d8-79c44d8a279d", BOB)
    assert (foreign.status, foreign.code) == (404, "task_not_found")
    own = ("instance", "request_id")
    assert {k: v for k, v in foreign.json.items() if k not in own} == {
        k: v for k, v in unknown.json.items() if k not in own
    }
    assert as_alice_sees_it(edge, task_id) == before


@pytest.mark.parametrize(("method", "path"), [one for one in GUARDED if one not in OF_A_TASK])
def test_what_is_about_many_tasks_shows_ones_own_only(edge, task_id, method, path):
    shown = ask(edge, method, path, task_id, BOB).body.decode()
    assert task_id not in shown
    assert "her-own" not in shown


@pytest.mark.parametrize(("method", "path"), OF_A_TASK)
def test_an_admin_may_do_all_of_it_to_the_task_of_anybody(edge, task_id, method, path):
    if path.endswith(("/retry", "/events")):
        edge.ask("POST", f"/api/v1/task/{task_id}/cancel", **ALICE)
    assert ask(edge, method, path, task_id, ROOT).status < 300


def test_an_admin_lists_and_counts_the_tasks_of_everybody(edge, task_id):
    listed = edge.ask("GET", "/api/v1/task", **ROOT).json["data"]
    assert len(listed) == 2
    assert task_id in {task["task_id"] for task in listed}
    assert "her-own" in edge.ask("GET", "/api/v1/queue", **ROOT).body.decode()


def test_what_an_admin_tries_again_stays_its_owners(edge, task_id):
    edge.ask("POST", f"/api/v1/task/{task_id}/cancel", **ALICE)
    again = edge.ask("POST", f"/api/v1/task/{task_id}/retry", **ROOT).json["task_id"]
    assert as_alice_sees_it(edge, again)["retry_of"] == task_id


def test_the_same_idempotency_key_of_two_owners_is_two_keys(edge):
    asked = [edge.submit({"input": "x"}, Idempotency_Key="k", **key) for key in (ALICE, BOB, ALICE)]
    first, other, again = (answer.json["task_id"] for answer in asked)
    assert again == first != other


def test_the_tasks_of_a_batch_and_its_key_are_its_owners(edge):
    def submit(key):
        batch = {"tasks": [{"input": "x"}]}
        reply = edge.ask("POST", "/api/v1/task/batch", batch, Idempotency_Key="k", **key)
        return reply.json["data"][0]["task_id"]

    hers, his = submit(ALICE), submit(BOB)
    assert submit(ALICE) == hers != his
    assert edge.ask("GET", f"/api/v1/task/{hers}", **BOB).status == 404
    assert as_alice_sees_it(edge, hers)["task_id"] == hers


def test_a_key_that_asks_too_often_is_told_to_come_back(make_edge):
    edge = make_edge(security={"api_keys": [api_key("bob", requests_per_second=0.001)]})
    assert edge.ask("GET", "/api/v1/task", **BOB).status == 200
    refused = edge.ask("GET", "/api/v1/task", **BOB)
    assert (refused.status, refused.code, refused.headers["Retry-After"]) == (
        429,
        "rate_limited",
        "60",
    )
    assert edge.ask("GET", "/api/v1/health").status == 200
