"""Many tasks in one request: each is taken or refused by itself."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from domain.errors import StorageFull
from domain.service import Submission
from entrypoints.http.batch import read_batch
from entrypoints.http.errors import Refused

BATCH = "/api/v1/task/batch"
GOOD = {"input": "x"}
BAD = {"input": "x", "priority": 11}
numbers = iter(range(1_000_000))


@pytest.fixture
def key():
    """One that nobody used before."""
    return f"batch-{next(numbers)}"


def submit(edge, *tasks, **headers):
    return edge.ask("POST", BATCH, {"tasks": tasks}, **headers)


def accepted(reply):
    """The ids of the tasks that were taken; the answer must be one to a batch."""
    assert reply.status == 202, reply.body
    assert reply.json.keys() == {"data"}
    return [one["task_id"] for one in reply.json["data"] if "task_id" in one]


def refused(reply):
    """The codes of those that were not, by their place."""
    return {
        place: one["error"]["code"]
        for place, one in enumerate(reply.json["data"])
        if "error" in one
    }


# --- what becomes of each ------------------------------------------------------------------------


def test_a_thousand_tasks_are_taken_at_once_and_told_of_in_order(make_edge):
    edge = make_edge()
    reply = submit(edge, *({"input": f"task {number}"} for number in range(1_000)))
    ids = accepted(reply)
    assert {one["status"] for one in reply.json["data"]} == {"pending"}
    assert edge.store.asked["submit"] == 1
    listed = [
        (task["task_id"], task["input"])
        for task in edge.ask("GET", "/api/v1/task?order=asc&limit=100&include=input").json["data"]
    ]
    assert listed == [(ids[number], f"task {number}") for number in range(100)]
    assert len(set(ids)) == 1_000 == edge.do(edge.store.counts()).pending
    assert 1 <= int(reply.headers["Retry-After"]) <= 60


def test_each_task_is_what_it_would_be_alone(edge):
    asked = GOOD | {"options": {"model": "llama-3"}, "metadata": {"a": "b"}, "priority": 3}
    [task_id] = accepted(submit(edge, asked))
    alone = edge.ask("GET", edge.submit(asked).headers["Location"]).json
    in_batch = edge.ask("GET", f"/api/v1/task/{task_id}").json
    own = {"task_id", "created_at", "queue_position"}
    assert {name for name in alone if alone[name] != in_batch[name]} <= own
    assert alone.keys() == in_batch.keys()


def test_a_bad_one_spoils_only_itself(edge):
    reply = submit(edge, GOOD, BAD, 7, GOOD, {"inputs": "x"}, None)
    assert len(accepted(reply)) == 2
    assert refused(reply) == dict.fromkeys((1, 2, 4, 5), "invalid_request")
    error = reply.json["data"][1]["error"]
    assert error.keys() == {"code", "detail", "errors"}
    assert error["detail"] == "The request is not valid; see `errors`."
    assert error["errors"] == [{"path": "/tasks/1/priority", "message": "Expected `float` <= 10.0"}]
    paths = [fault["path"] for fault in reply.json["data"][4]["error"]["errors"]]
    assert paths == ["/tasks/4/input", "/tasks/4/inputs"]
    assert reply.json["data"][2]["error"]["errors"][0]["path"] == "/tasks/2"


def test_each_error_shows_little_of_what_was_sent(edge):
    reply = submit(edge, GOOD | {"y" * 10_000: 1}, GOOD)
    [fault] = reply.json["data"][0]["error"]["errors"]
    assert len(fault["path"]) <= len("/tasks/0") + 100
    assert len(accepted(reply)) == 1


# --- what is wrong with the whole ----------------------------------------------------------------


@pytest.mark.any_store
@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ([], [""]),
        (7, [""]),
        ({}, ["/tasks"]),
        ({"tasks": None}, ["/tasks"]),
        ({"tasks": {}}, ["/tasks"]),
        ({"tasks": []}, ["/tasks"]),
        ({"tasks": [GOOD] * 1_001}, ["/tasks"]),
        ({"tasks": [GOOD], "more": 1}, ["/more"]),
        ({"tasks": [], "a/b": 1}, ["/a~1b", "/tasks"]),
        (b'{"tasks": 1, "tasks": [{"input": "x"}]}', ["/tasks"]),
    ],
)
def test_what_is_no_batch_is_an_invalid_request(edge, body, paths):
    reply = edge.ask("POST", BATCH, body)
    assert (reply.status, reply.code, reply.paths) == (400, "invalid_request", paths)


@pytest.mark.any_store
@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b'{"tasks": [{"input": "x"}', "invalid_json"),
        (b'{"tasks": [{"input": NaN}]}', "invalid_json"),
        (b'{"tasks": [{"input": "\xff"}]}', "invalid_encoding"),
        (b'{"tasks": [{"input": "\\ud800"}]}', "invalid_encoding"),
        (b'{"tasks": [{"input": {"a": %s}}]}' % (b"[" * 61 + b"]" * 61), "too_deep"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_whole(edge, text, code):
    reply = edge.ask("POST", BATCH, text)
    assert (reply.status, reply.code) == (400, code)


# --- batches that are sent again -----------------------------------------------------------------


def test_the_same_batch_under_the_same_key_tells_of_the_same_tasks(edge, key):
    first = submit(edge, GOOD, BAD, GOOD, Idempotency_Key=key)
    again = submit(edge, GOOD, BAD, GOOD, Idempotency_Key=key)
    assert (first.headers["Idempotency-Replayed"], len(set(accepted(first)))) == (None, 2)
    assert (again.headers["Idempotency-Replayed"], again.json) == ("true", first.json)


def test_how_a_batch_is_written_makes_no_difference(edge, key):
    one, other = b'{"tasks":[{"input":{"a":1,"b":2}}]}', b'{"tasks": [{"input":{"b":2.0,"a":1}}]}'
    first = edge.ask("POST", BATCH, one, Idempotency_Key=key)
    assert accepted(edge.ask("POST", BATCH, other, Idempotency_Key=key)) == accepted(first)


@pytest.mark.parametrize(
    "changed",
    [
        [GOOD, BAD],
        [GOOD, BAD, GOOD, GOOD],
        [GOOD, GOOD, GOOD],
        [GOOD, BAD, GOOD | {"priority": 1}],
        [BAD, BAD, GOOD],
        [GOOD, GOOD | {"input": 10**30}, GOOD],
    ],
)
def test_a_changed_batch_under_the_same_key_is_a_mismatch_and_stores_nothing(edge, key, changed):
    first = submit(edge, GOOD, BAD, GOOD, Idempotency_Key=key)
    before = edge.do(edge.store.counts())
    reply = submit(edge, *changed, Idempotency_Key=key)
    assert (reply.status, reply.code) == (422, "idempotency_mismatch")
    assert edge.do(edge.store.counts()) == before
    assert submit(edge, GOOD, BAD, GOOD, Idempotency_Key=key).json == first.json


def test_a_batch_whose_good_ones_stand_elsewhere_is_a_changed_one(edge, key):
    submit(edge, GOOD, BAD, Idempotency_Key=key)
    assert submit(edge, BAD, GOOD, Idempotency_Key=key).code == "idempotency_mismatch"


def test_a_task_is_not_told_of_in_the_place_of_another_when_the_settings_have_changed():
    text = b'{"tasks": [{"input": "x", "timeout_seconds": 9}, {"input": "x"}]}'
    first, _ = asyncio.run(read_batch(text, 10, "key"))
    refused, second = asyncio.run(read_batch(text, 5, "key"))
    assert isinstance(refused, Refused)
    assert isinstance(first, Submission)
    assert isinstance(second, Submission)
    assert first.idempotency != second.idempotency


def test_a_batch_and_a_single_task_do_not_share_a_key(edge, key):
    single = edge.submit(GOOD, Idempotency_Key=key).json["task_id"]
    ids = accepted(submit(edge, GOOD, GOOD, Idempotency_Key=key))
    assert len({single, *ids}) == 3
    assert edge.submit(GOOD, Idempotency_Key=key).json["task_id"] == single


@pytest.mark.any_store
def test_a_bad_key_is_refused_with_the_name_of_the_header(edge):
    reply = submit(edge, GOOD, Idempotency_Key="a b")
    assert (reply.status, reply.paths) == (400, ["Idempotency-Key"])


# --- a service without room, or about to stop --------------------------------------------------


def test_what_alone_has_no_place_any_more_is_told_so(make_edge):
    edge = make_edge(inference={"max_pending_tasks": 2})
    reply = submit(edge, GOOD, BAD, GOOD, GOOD, BAD, GOOD)
    assert len(accepted(reply)) == 2 == edge.do(edge.store.counts()).pending
    assert refused(reply) == {
        1: "invalid_request",
        3: "queue_full",
        4: "invalid_request",
        5: "queue_full",
    }
    error = reply.json["data"][3]["error"]
    assert error == {
        "code": "queue_full",
        "detail": "Too many tasks are pending; try again later.",
        "errors": [],
    }


def test_a_batch_of_nothing_good_makes_nothing(make_edge):
    edge = make_edge()
    reply = submit(edge, BAD, BAD)
    assert (accepted(reply), len(refused(reply))) == ([], 2)
    assert edge.do(edge.store.counts()).total == 0


def test_the_limit_of_bodies_holds_for_the_whole(make_edge):
    edge = make_edge(server={"max_body_bytes": 200})
    fitting = json.dumps({"tasks": [GOOD] * 3}).encode().ljust(200)
    assert len(accepted(edge.ask("POST", BATCH, fitting))) == 3
    reply = edge.ask("POST", BATCH, fitting + b" ")
    assert (reply.status, reply.code) == (413, "body_too_large")


def test_who_is_stopping_takes_none_of_them(make_edge):
    edge = make_edge()
    edge.call(edge.tasks.stop_accepting)
    reply = submit(edge, GOOD, BAD)
    assert (reply.status, reply.code) == (503, "draining")
    assert 1 <= int(reply.headers["Retry-After"]) <= 60


def test_a_disk_without_room_takes_none_of_them(make_edge):
    edge = make_edge()
    edge.store.fault = StorageFull(free_bytes=1, needed_bytes=2)
    assert submit(edge, GOOD, BAD).code == "storage_full"
    edge.store.fault = None
    assert edge.do(edge.store.counts()).total == 0


def test_what_had_no_place_is_taken_when_it_is_sent_again(make_edge, key):
    edge = make_edge(inference={"max_pending_tasks": 2})
    first = submit(edge, GOOD, GOOD, GOOD, Idempotency_Key=key)
    assert refused(first) == {2: "queue_full"}
    edge.ask("POST", f"/api/v1/task/{accepted(first)[0]}/cancel")
    again = submit(edge, GOOD, GOOD, GOOD, Idempotency_Key=key)
    assert accepted(again)[:2] == accepted(first)
    assert len(set(accepted(again))) == 3
    assert again.headers["Idempotency-Replayed"] == "true"


def test_a_full_queue_still_answers_for_the_batch_that_it_took(make_edge, key):
    edge = make_edge(inference={"max_pending_tasks": 2})
    first = submit(edge, GOOD, GOOD, Idempotency_Key=key)
    assert submit(edge, GOOD, GOOD, Idempotency_Key=key).json == first.json
    assert submit(edge, GOOD, Idempotency_Key=key).code == "idempotency_mismatch"


def test_of_equal_batches_at_once_one_makes_the_tasks(make_edge, key):
    edge = make_edge()

    def send(connection):
        return submit(connection, GOOD, GOOD, GOOD, Idempotency_Key=key)

    connections = [edge.connect() for _ in range(10)]
    with ThreadPoolExecutor(len(connections)) as pool:
        replies = list(pool.map(send, connections))
    assert len({tuple(accepted(reply)) for reply in replies}) == 1
    assert edge.do(edge.store.counts()).pending == 3


def test_batches_are_stored_one_after_the_other_so_that_claims_come_between(make_edge):
    edge, within, most = make_edge(), [], []
    store = edge.store.submit

    async def submit_slowly(*arguments):
        within.append(arguments)
        most.append(len(within))
        for _ in range(100):  # turns of the loop, in which others could begin
            await asyncio.sleep(0)
        within.pop()
        return await store(*arguments)

    edge.store.submit = submit_slowly
    connections = [edge.connect() for _ in range(10)]
    for connection in connections:
        connection.begin("POST", BATCH, {"tasks": [GOOD]})
    assert {connection.reply().status for connection in connections} == {202}
    assert most == [1] * 10
