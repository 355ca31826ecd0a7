"""Tasks among others: filters, orders, pages."""

import asyncio
from urllib.parse import quote, urlencode

import pytest
from msgspec.structs import replace

from domain.query import ROWS_PER_PAGE, Position, TaskQuery
from domain.service import Caller
from domain.task import ANONYMOUS
from entrypoints.http.access import new_key
from entrypoints.http.cursors import cursor_of, position_of

LIST = "/api/v1/task"
GOOD = {"input": "x"}


def ask(edge, *pairs, **parameters):
    query = urlencode([*pairs, *parameters.items()])
    return edge.ask("GET", f"{LIST}?{query}" if query else LIST)


def ids(reply):
    assert reply.status == 200, reply.body
    return [task["task_id"] for task in reply.json["data"]]


def submit(edge, body=GOOD):
    return edge.submit(body).json["task_id"]


def walk(edge, **parameters):
    """The ids of all pages."""
    reply = ask(edge, **parameters)
    found = ids(reply)
    while reply.json["has_more"]:
        reply = ask(edge, cursor=reply.json["next_cursor"], **parameters)
        found += ids(reply)
    assert reply.json["next_cursor"] is None
    return found


@pytest.fixture(scope="module")
def some(edge):
    """An edge with five tasks, oldest first: done, failed, two that run, one that waits."""
    completed = edge.submit({"input": "first", "options": {"model": "m"}})
    edge.complete(completed)
    failed = edge.submit({"input": "second"})
    edge.fail(failed)
    running = [edge.submit({"input": {"n": number}}) for number in range(2)]
    edge.claim(running[0])
    pending = edge.submit({"input": "last", "options": {"model": "llama-3"}})
    return edge, [reply.json["task_id"] for reply in (completed, failed, *running, pending)]


def test_the_newest_come_first_unless_told_otherwise(some):
    edge, tasks = some
    assert ids(ask(edge)) == ids(ask(edge, order="desc")) == tasks[::-1]
    assert ids(ask(edge, order="asc")) == tasks


def test_inputs_and_results_are_left_out_unless_asked_for(some):
    edge, _ = some
    *_, first = ask(edge).json["data"]
    assert not {"input", "result", "queue_position"} & first.keys()
    alone = edge.ask("GET", f"{LIST}/{first['task_id']}").json
    assert first == {name: alone[name] for name in first}
    assert len(alone) - len(first) == 4
    *_, second, first = ask(edge, include="input,result").json["data"]
    assert (first["input"], first["result"]) == ("first", {"output": "x"})
    assert (second["input"], second["result"]) == ("second", None)
    *_, first = ask(edge, include="input").json["data"]
    assert (first["input"], "result" in first) == ("first", False)


def test_filters_are_joined_by_and_states_by_or(some):
    edge, (completed, failed, running, other, pending) = some
    assert ids(ask(edge, status="completed")) == [completed]
    states = [("status", "failed"), ("status", "running"), ("status", "failed")]
    assert ids(ask(edge, *states)) == [other, running, failed]
    assert ids(ask(edge, *states, order="asc", executor="llama")) == []
    assert ids(ask(edge, executor="llama")) == [pending]
    assert ids(ask(edge, model="m")) == [completed]
    assert ids(ask(edge, model="m", status="failed")) == []
    assert ids(ask(edge, status="cancelled")) == []


def test_both_bounds_of_time_are_exclusive(some):
    edge, tasks = some
    instants = [task["created_at"] for task in ask(edge, order="asc").json["data"]]
    between = {"created_after": instants[0], "created_before": instants[3]}
    assert ids(ask(edge, order="asc", **between)) == tasks[1:3]
    with_offset = instants[3].replace("Z", "+00:00")
    assert ids(ask(edge, created_after=with_offset)) == [tasks[4]]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_a_walk_over_the_pages_meets_every_task_once(some, order, limit):
    edge, tasks = some
    expected = tasks if order == "asc" else tasks[::-1]
    assert walk(edge, order=order, limit=limit) == expected


def test_a_page_has_twenty_tasks_unless_told_otherwise(make_edge):
    edge = make_edge()
    for _ in range(25):
        edge.submit(GOOD)
    reply = ask(edge)
    assert (len(reply.json["data"]), reply.json["has_more"]) == (20, True)
    assert len(ids(ask(edge, cursor=reply.json["next_cursor"]))) == 5


def test_tasks_that_come_and_go_meanwhile_move_no_others(make_edge):
    edge = make_edge()
    tasks = [submit(edge) for _ in range(6)]
    page = ask(edge, limit=2)
    edge.ask("DELETE", f"{LIST}/{tasks[5]}")
    submit(edge)
    rest = ask(edge, limit=100, cursor=page.json["next_cursor"])
    assert ids(page) + ids(rest) == tasks[::-1]


def test_an_empty_page_may_say_that_more_follow(make_edge):
    edge = make_edge()
    task_id = submit(edge)
    edge.ask("POST", f"{LIST}/{task_id}/cancel")
    edge.do(submit_many(edge, ROWS_PER_PAGE))
    first = ask(edge, status="cancelled")
    assert (first.json["data"], first.json["has_more"]) == ([], True)
    assert walk(edge, status="cancelled") == [task_id]


async def submit_many(edge, number):
    submission = edge.submission("x")
    submits = [edge.tasks.submit(Caller(ANONYMOUS), submission) for _ in range(number)]
    await asyncio.gather(*submits)


# --- cursors -----------------------------------------------------------------------------------


@pytest.fixture
def cursor(some):
    edge, _ = some
    return ask(edge, limit=1, status="running").json["next_cursor"]


def assert_refused(reply, *paths):
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert reply.paths == list(paths)


def test_page_size_and_content_may_change_on_the_way(some, cursor):
    edge, tasks = some
    reply = ask(edge, cursor=cursor, status="running", limit=50, include="input")
    assert ids(reply) == [tasks[2]]


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"status": "pending"},
        {"status": "running", "order": "asc"},
        {"status": "running", "model": "m"},
        {"status": "running", "executor": "echo"},
        {"status": "running", "created_after": "2020-01-01T00:00:00Z"},
        {"status": "running", "created_before": "2100-01-01T00:00:00Z"},
    ],
)
def test_a_cursor_fits_its_own_list_only(some, cursor, other):
    assert_refused(ask(some[0], cursor=cursor, **other), "cursor")


@pytest.mark.parametrize(
    "broken",
    [
        lambda cursor: "",
        lambda cursor: "x",
        lambda cursor: cursor[:-1],
        lambda cursor: cursor + "A",
        lambda cursor: cursor + "=",
        lambda cursor: "!" + cursor,
        lambda cursor: cursor[:-4] + cursor[-4:].swapcase(),
        lambda cursor: ("B" if cursor[8] == "A" else "A").join([cursor[:8], cursor[9:]]),
        lambda cursor: "A" * len(cursor),
        lambda cursor: "ü" * 40,
        lambda cursor: "A" * 10_000,
    ],
)
def test_a_cursor_that_we_did_not_make_is_refused(some, cursor, broken):
    assert_refused(ask(some[0], cursor=broken(cursor), status="running"), "cursor")


def test_a_cursor_belongs_to_those_who_see_the_same():
    position, mine = Position(1_700_000_000_000_000, 7), TaskQuery(owner="alice")
    cursor = cursor_of(position, mine)
    assert position_of(cursor, mine) == position
    assert position_of(cursor, TaskQuery(owner="bob")) is None
    assert position_of(cursor, TaskQuery(owner=None)) is None


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("x=1", ["x"]),
        ("Status=pending", ["Status"]),
        ("status=done", ["status"]),
        ("status=", ["status"]),
        ("status=pending,running", ["status"]),
        ("status=pending&status=x", ["status"]),
        ("limit=0", ["limit"]),
        ("limit=101", ["limit"]),
        ("limit=-1", ["limit"]),
        ("limit=1.5", ["limit"]),
        ("limit=%D9%A3", ["limit"]),
        ("limit=" + "9" * 5_000, ["limit"]),
        ("limit=", ["limit"]),
        ("limit=5&limit=5", ["limit"]),
        ("order=newest", ["order"]),
        ("order=asc&order=asc", ["order"]),
        ("include=output", ["include"]),
        ("include=input,input", ["include"]),
        ("include=input&include=result", ["include"]),
        ("created_after=yesterday", ["created_after"]),
        ("created_after=2023-10-24T08:15:30", ["created_after"]),
        ("created_after=2023-10-24T08:15:30+02:00", ["created_after"]),
        ("created_after=1698135330", ["created_after"]),
        ("created_before=2023-13-24T08:15:30Z", ["created_before"]),
        ("executor=" + "x" * 65, ["executor"]),
        ("executor=a%00", ["executor"]),
        ("model=a%00", ["model"]),
        ("model=%FF", ["model"]),
        ("model=%ED%A0%80", ["model"]),
        ("model=" + "x" * 257, ["model"]),
        ("a=1&limit=0&status=x&model=m&model=n", ["a", "limit", "status", "model"]),
    ],
)
def test_every_fault_of_a_query_is_named(edge, query, paths):
    reply = edge.ask("GET", f"{LIST}?{query}")
    assert_refused(reply, *paths)
    assert len(reply.body) < 5_000


def test_long_and_many_parameters_make_no_long_answers(edge):
    for query in ("&".join(f"p{n}=1" for n in range(5_000)), "x" * 10_000, "status=x&" * 5_000):
        reply = edge.ask("GET", f"{LIST}?{query}")
        assert (reply.status, reply.code) == (400, "invalid_request")
        assert len(reply.body) < 40_000


@pytest.mark.parametrize("query", ["", "&", "&&limit=5&", "created_after=0001-01-01T00:00:00Z"])
def test_odd_but_good_queries_are_taken(edge, query):
    assert edge.ask("GET", f"{LIST}?{query}").status == 200


def test_other_parameters_are_taken_as_they_are_meant(make_edge):
    edge = make_edge()
    task_id = submit(edge, GOOD | {"options": {"model": "模型 +&=%"}})
    assert ids(edge.ask("GET", f"{LIST}?model={quote('模型 +&=%')}")) == [task_id]
    assert ids(ask(edge, model="模型 +&=%")) == [task_id]


# --- whose tasks ---------------------------------------------------------------------------------


@pytest.fixture
def keys():
    """The header of each of three callers, and the settings that let them in."""
    made = {name: new_key(name) for name in ("alice", "bob", "root")}
    entries = [replace(entry, admin=name == "root") for name, (_, entry) in made.items()]
    return {name: {"X_API_Key": text} for name, (text, _) in made.items()}, entries


def test_everybody_sees_their_own_tasks_and_an_admin_sees_all(make_edge, keys):
    headers, entries = keys
    edge = make_edge(security={"api_keys": entries})
    replies = {name: edge.submit(GOOD, **headers[name]) for name in ("alice", "bob")}
    tasks = {name: reply.json["task_id"] for name, reply in replies.items()}

    def seen(name):
        return ids(edge.ask("GET", LIST, **headers[name]))

    assert (seen("alice"), seen("bob")) == ([tasks["alice"]], [tasks["bob"]])
    assert seen("root") == [tasks["bob"], tasks["alice"]]
    queues = {name: edge.ask("GET", "/api/v1/queue", **of).json for name, of in headers.items()}
    pending = {name: queue["by_status"]["pending"] for name, queue in queues.items()}
    assert pending == {"alice": 1, "bob": 1, "root": 2}


def test_what_belongs_to_others_is_not_there_for_a_caller(make_edge, keys):
    headers, entries = keys
    edge = make_edge(security={"api_keys": entries})
    location = edge.submit(GOOD, **headers["alice"]).headers["Location"]
    asked = [("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")]
    for method, action in asked:
        assert edge.ask(method, location + action, **headers["bob"]).code == "task_not_found"
        assert edge.ask(method, location + action).code == "unauthorized"
    waiting = edge.ask("GET", location, Prefer="wait=60", **headers["bob"])
    assert waiting.code == "task_not_found"
    cancelled = edge.ask("POST", location + "/cancel", **headers["root"])
    assert cancelled.json["status"] == "cancelled"
    again = edge.ask("POST", location + "/retry", **headers["root"]).headers["Location"]
    assert edge.ask("GET", again, **headers["alice"]).json["retry_of"] in location


def test_a_key_of_idempotency_is_each_callers_own(make_edge, keys):
    headers, entries = keys
    edge = make_edge(security={"api_keys": entries})
    of_alice = edge.submit(GOOD, Idempotency_Key="k", **headers["alice"])
    of_bob = edge.submit({"input": "y"}, Idempotency_Key="k", **headers["bob"])
    assert (of_alice.status, of_bob.status) == (202, 202)
