"""Submits that are sent again under the same key."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from entrypoints.http.fingerprint import fingerprint

GOOD = {"input": "x"}
numbers = iter(range(1_000_000))


@pytest.fixture
def key():
    """One that nobody used before."""
    return f"key-{next(numbers)}"


def test_the_same_key_with_the_same_body_tells_of_the_same_task(edge, key):
    first = edge.submit(GOOD, Idempotency_Key=key)
    again = edge.submit(GOOD, Idempotency_Key=key)
    assert (first.status, first.headers["Idempotency-Replayed"]) == (202, None)
    assert (again.status, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert (again.json, again.headers["Location"]) == (first.json, first.headers["Location"])
    assert 1 <= int(again.headers["Retry-After"]) <= 60


def test_the_status_is_that_of_now(edge, key):
    edge.complete(edge.submit(GOOD, Idempotency_Key=key))
    again = edge.submit(GOOD, Idempotency_Key=key)
    assert (again.status, again.json["status"]) == (202, "completed")
    assert again.json.keys() == {"task_id", "status"}


def test_a_repetition_may_wait_for_the_end_like_the_first_one(edge, key):
    first = edge.submit(GOOD, Idempotency_Key=key)
    edge.complete(first)
    again = edge.submit(GOOD, Idempotency_Key=key, Prefer="wait=30")
    assert (again.status, again.headers["Idempotency-Replayed"]) == (200, "true")
    assert again.json == edge.ask("GET", first.headers["Location"]).json


def test_the_same_key_with_another_body_is_a_mismatch(edge, key):
    first = edge.submit(GOOD, Idempotency_Key=key)
    for body in ({"input": "y"}, GOOD | {"priority": 1}, GOOD | {"options": None}):
        reply = edge.submit(body, Idempotency_Key=key)
        assert (reply.status, reply.code) == (422, "idempotency_mismatch")
    assert edge.submit(GOOD, Idempotency_Key=key).json == first.json


def test_a_full_queue_still_answers_for_what_it_took(make_edge, key):
    edge = make_edge(inference={"max_pending_tasks": 1})
    first = edge.submit(GOOD, Idempotency_Key=key)
    assert edge.submit(GOOD, Idempotency_Key=key + "-other").code == "queue_full"
    assert edge.submit(GOOD, Idempotency_Key=key).json == first.json


def test_a_key_is_free_again_when_its_task_is_removed(edge, key):
    first = edge.submit(GOOD, Idempotency_Key=key)
    edge.ask("DELETE", first.headers["Location"])
    again = edge.submit({"input": "y"}, Idempotency_Key=key)
    assert (again.status, again.headers["Idempotency-Replayed"]) == (202, None)


def test_a_refused_body_uses_no_key_up(edge, key):
    assert edge.submit({"input": 1}, Idempotency_Key=key).code == "invalid_request"
    assert edge.submit(GOOD, Idempotency_Key=key).status == 202


def test_of_a_hundred_at_once_one_makes_the_task(edge, key):
    def submit_five(connection):
        return [connection.submit(GOOD, Idempotency_Key=key) for _ in range(5)]

    connections = [edge.connect() for _ in range(20)]
    with ThreadPoolExecutor(len(connections)) as pool:
        replies = [reply for five in pool.map(submit_five, connections) for reply in five]
    replayed = [reply.headers["Idempotency-Replayed"] for reply in replies]
    assert {reply.status for reply in replies} == {202}
    assert len({reply.json["task_id"] for reply in replies}) == 1
    assert replayed.count(None) == 1


@pytest.mark.parametrize("key", ["!", "~" * 255, '"quoted"', "a,b"])
def test_any_visible_ascii_is_a_key(edge, key):
    first = edge.submit(GOOD, Idempotency_Key=key)
    assert edge.submit(GOOD, Idempotency_Key=key).json == first.json


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ü", "a\tb", ["a", "b"]])
def test_anything_else_is_refused_with_the_name_of_the_header(edge, key):
    reply = edge.submit(GOOD, Idempotency_Key=key)
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert reply.paths == ["Idempotency-Key"]


# --- when two bodies are the same ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a": 1, "b": [1, {"c": 2, "d": 3}]}', b'{"b":[1,{"d":3,"c":2}],"a":1}'),
        (b'{"a": 1}', b' {\n"a" : 1.0 } '),
        (b"[100, -0, 0.5]", b"[1e2, 0, 5E-1]"),
        (b"[1e300]", b"[10e299]"),
        (b"[9007199254740993]", b"[9007199254740993]"),
        (b'["\\u00e9\\/"]', '["é/"]'.encode()),
    ],
)
def test_bodies_that_are_the_same_json_value_are_the_same(one, other):
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"[1]", b"[true]"),
        (b"[1]", b'["1"]'),
        (b"[1, 2]", b"[2, 1]"),
        (b'{"a": null}', b"{}"),
        (b"[]", b"{}"),
        (b"[9007199254740993]", b"[9007199254740992.0]"),
        (b"[0.1]", b"[0.10000000000000002]"),
        (b'["\xc3\xa9"]', b'["e\xcc\x81"]'),
    ],
)
def test_bodies_that_are_not_are_not(one, other):
    assert fingerprint(one) != fingerprint(other)
