"""What there is to watch at `/metrics`, and that clients cannot make it grow."""

import hashlib
import uuid

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_in
from prometheus_client.parser import text_string_to_metric_families as metrics_in

from domain.errors import StoreUnavailable
from domain.inference import Usage
from domain.ports import Completed
from settings.schema import ApiKey

GOOD = {"input": "x"}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

EVERYTHING = {
    "task_agent_requests": ("counter", {"method", "route", "status"}),
    "task_agent_request_seconds": ("histogram", {"method", "route"}),
    "task_agent_store_seconds": ("histogram", {"method"}),
    "task_agent_store_failures": ("counter", {"method"}),
    "task_agent_tasks": ("gauge", {"status"}),
    "task_agent_live_tasks": ("gauge", {"executor", "status"}),
    "task_agent_oldest_pending_seconds": ("gauge", set()),
    "task_agent_tokens": ("counter", {"executor", "kind"}),
    "task_agent_attempts": ("counter", {"executor", "outcome"}),
    "task_agent_fenced_writes": ("counter", set()),
    "task_agent_leases_lost": ("counter", set()),
    "task_agent_tasks_reclaimed": ("counter", set()),
    "task_agent_loop_ticks": ("counter", {"loop"}),
}
"""Each metric with its kind and its labels: dashboards and alerts are built on these names."""


def families_of(edge, **headers):
    reply = edge.ask("GET", "/metrics", Accept=OPENMETRICS, **headers)
    assert reply.status == 200
    return {family.name: family for family in openmetrics_in(reply.body.decode())}


def values_of(edge, name):
    """The values of a metric, by its labels in their order."""
    samples = families_of(edge)[name].samples
    own = [one for one in samples if one.name in (name, f"{name}_total", f"{name}_count")]
    return {tuple(one.labels.values()): one.value for one in own}


def answered(edge, *labels):
    """How often a method of a route was answered with a status."""
    return values_of(edge, "task_agent_requests").get(labels, 0)


def complete_one(edge):
    """Let a task run to its end, through the store that is measured; gives how it ended."""
    store = edge.metrics.store
    edge.submit(GOOD)
    [claim, *_] = edge.do(store.claim("worker", {"echo": 1}, 30.0))
    ended = Completed(claim.fence, b'{"output": "x"}', Usage(1, 2, 3))
    edge.do(store.settle([ended]))
    return ended


@pytest.mark.any_store
def test_these_are_all_the_metrics_there_are(make_edge):
    edge = make_edge()
    complete_one(edge)
    edge.submit(GOOD)
    edge.store.fault = StoreUnavailable("no answer")
    assert edge.ask("GET", "/api/v1/task/x").status == 503
    edge.store.fault = None
    told = {
        name: (family.type, {label for one in family.samples for label in one.labels} - {"le"})
        for name, family in families_of(edge).items()
    }
    assert told == EVERYTHING
    assert all(family.documentation for family in families_of(edge).values())


# --- what they tell ----------------------------------------------------------------------------


def test_tasks_are_told_by_status_and_live_ones_by_executor_too(make_edge):
    edge = make_edge()
    complete_one(edge)
    edge.submit(GOOD)
    edge.claim(edge.submit(GOOD))
    for _ in range(3):
        edge.submit(GOOD | {"options": {"model": "llama-3"}})
    assert values_of(edge, "task_agent_tasks") == {
        ("pending",): 3,
        ("running",): 2,
        ("completed",): 1,
        ("failed",): 0,
        ("cancelled",): 0,
    }
    assert values_of(edge, "task_agent_live_tasks") == {
        ("echo", "pending"): 0,
        ("echo", "running"): 2,
        ("llama", "pending"): 3,
        ("llama", "running"): 0,
    }


def test_the_oldest_pending_task_tells_its_age_and_an_empty_queue_none(make_edge):
    edge = make_edge()
    assert values_of(edge, "task_agent_oldest_pending_seconds") == {(): 0}
    edge.submit(GOOD)
    first = values_of(edge, "task_agent_oldest_pending_seconds")[()]
    assert first < values_of(edge, "task_agent_oldest_pending_seconds")[()]


def test_what_tasks_have_cost_is_told_by_executor(make_edge):
    edge = make_edge()
    for _ in range(2):
        edge.complete(edge.submit(GOOD), usage=Usage(1, 2, 3))
    assert values_of(edge, "task_agent_tokens") == {("echo", "input"): 2, ("echo", "output"): 4}


def test_what_is_gone_is_told_no_more(make_edge):
    edge = make_edge()
    edge.ask("DELETE", edge.submit(GOOD).headers["Location"])
    assert values_of(edge, "task_agent_live_tasks") == {}


@pytest.mark.any_store
def test_requests_are_counted_by_the_template_of_their_path_and_their_status(make_edge):
    edge = make_edge()
    task = edge.submit(GOOD).headers["Location"]
    edge.submit({"input": 1})
    for path in (task, task, "/api/v1/task/x", "/nope"):
        edge.ask("GET", path)
    edge.ask("PUT", task)
    edge.ask("GET", "/livez", Host="foreign.example")
    edge.ask("GET", task, Host="foreign.example")
    assert values_of(edge, "task_agent_requests") == {
        ("POST", "/api/v1/task/inference", "202"): 1,
        ("POST", "/api/v1/task/inference", "400"): 1,
        ("GET", "/api/v1/task/{task_id}", "200"): 2,
        ("GET", "/api/v1/task/{task_id}", "404"): 1,
        ("GET", "/livez", "200"): 1,
        ("GET", "none", "404"): 1,
        ("GET", "none", "400"): 1,
        ("PUT", "none", "405"): 1,
    }
    timed = values_of(edge, "task_agent_request_seconds")
    assert timed["GET", "/api/v1/task/{task_id}"] == 3
    assert timed["GET", "/metrics"] == 1


def test_every_call_to_the_store_is_timed_and_the_ones_without_answer_are_counted(make_edge):
    edge = make_edge()
    edge.submit(GOOD)
    edge.store.fault = StoreUnavailable("no answer")
    edge.ask("GET", "/api/v1/task/x")
    edge.store.fault = None
    assert values_of(edge, "task_agent_store_failures") == {("get",): 1}
    timed = values_of(edge, "task_agent_store_seconds")
    assert (timed["submit",], timed["get",]) == (1, 1)


@pytest.mark.any_store
def test_what_came_of_attempts_is_counted_and_what_came_too_late(make_edge):
    edge = make_edge()
    ended = complete_one(edge)
    assert edge.do(edge.metrics.store.settle([ended])) == [None]
    assert values_of(edge, "task_agent_attempts") == {("echo", "completed"): 1}
    assert values_of(edge, "task_agent_fenced_writes") == {(): 1}


@pytest.mark.any_store
def test_what_ends_though_it_was_cancelled_counts_as_cancelled(make_edge):
    edge = make_edge()
    accepted = edge.submit(GOOD)
    [claim] = edge.do(edge.metrics.store.claim("worker", {"echo": 1}, 30.0))
    edge.ask("POST", f"{accepted.headers['Location']}/cancel")
    edge.do(edge.metrics.store.settle([Completed(claim.fence, b'{"output": "x"}', None)]))
    assert values_of(edge, "task_agent_attempts") == {("echo", "cancelled"): 1}


def test_the_loops_of_the_process_tick(service, eventually):
    first = values_of(service, "task_agent_loop_ticks")
    assert {("claim",), ("renew",), ("settle",), ("reclaim",), ("probe",)} <= first.keys()
    assert eventually(
        lambda: values_of(service, "task_agent_loop_ticks")["watch",] > first["watch",]
    )


# --- how the page is asked for -------------------------------------------------------------------


@pytest.mark.any_store
@pytest.mark.parametrize(
    ("accept", "media_type", "parse"),
    [
        (None, "text/plain; version=0.0.4; charset=utf-8", metrics_in),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8", metrics_in),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8", openmetrics_in),
    ],
)
def test_the_page_is_openmetrics_where_that_is_accepted_and_else_plain(
    edge, accept, media_type, parse
):
    reply = edge.ask("GET", "/metrics", Accept=accept)
    assert reply.headers["Content-Type"] == media_type
    assert {"task_agent_tasks"} <= {family.name for family in parse(reply.body.decode())}


@pytest.mark.any_store
@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "\xff",
        "application/openmetrics-text; version=x",
        "text/plain; version=1.0.0; escaping=?",
    ],
)
def test_an_odd_wish_gets_a_page_too(edge, accept):
    assert b"task_agent_tasks" in edge.ask("GET", "/metrics", Accept=accept).body


def test_a_store_that_does_not_answer_costs_only_what_it_would_tell(make_edge):
    edge = make_edge()
    whole = families_of(edge).keys()
    of_tasks = {
        "task_agent_tasks",
        "task_agent_live_tasks",
        "task_agent_oldest_pending_seconds",
        "task_agent_tokens",
    }
    edge.store.fault = StoreUnavailable("no answer")
    assert families_of(edge).keys() == whole - of_tasks
    edge.store.fault, edge.store.hangs = None, True
    assert families_of(edge).keys() == whole - of_tasks


@pytest.mark.any_store
def test_any_key_opens_it_where_there_are_keys_and_nothing_else_does(make_edge):
    digest = hashlib.sha256(b"of prometheus").hexdigest()
    edge = make_edge(security={"api_keys": [ApiKey(name="prometheus", sha256=digest)]})
    assert edge.ask("GET", "/metrics").code == "unauthorized"
    assert edge.ask("GET", "/metrics", X_API_Key="another").code == "unauthorized"
    assert edge.ask("GET", "/metrics", Authorization="Bearer of prometheus").status == 200


@pytest.mark.any_store
def test_foreign_hosts_and_sites_do_not_get_it(edge):
    assert edge.ask("GET", "/metrics", Host="foreign.example").code == "host_not_allowed"
    assert edge.ask("GET", "/metrics", Origin="http://foreign.example").code == "origin_not_allowed"


# --- how large it may become ---------------------------------------------------------------------


def series_of(edge):
    return {
        (one.name, *one.labels.items())
        for family in families_of(edge).values()
        for one in family.samples
    }


def ask_for_all_kinds_of_things(edge, methods):
    for number, method in enumerate(methods):
        made_up = uuid.uuid4().hex
        task = edge.submit({"input": made_up, "options": {"model": made_up}}).headers["Location"]
        for one, path in [
            *[("GET", f"/{made_up}"), ("GET", f"/livez?{number}"), (method, "/livez")],
            *[("GET", f"/api/v1/task/{made_up}"), ("POST", f"/api/v1/task/{made_up}/cancel")],
            *[("GET", f"/schema/{made_up}"), ("DELETE", task)],
        ]:
            edge.ask(one, path, X_Request_Id=made_up, Idempotency_Key=made_up)


@pytest.mark.any_store
def test_nothing_that_clients_make_up_adds_a_series(make_edge):
    edge = make_edge()
    ask_for_all_kinds_of_things(edge, ["PROPFIND"])
    series_of(edge)
    before = series_of(edge)
    ask_for_all_kinds_of_things(edge, ["MKCOL", "PURGE", "SEARCH", "TRACE", "LOCK"] * 30)
    assert series_of(edge) == before
    assert len(before) < 1_000
