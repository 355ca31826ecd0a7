"""What is the same for every request: its id, its line in the log, its Host and its Origin."""

import asyncio
import gc
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from entrypoints.http.edge import Edge
from entrypoints.metrics.requests import Requests
from settings.schema import SecuritySettings

pytestmark = pytest.mark.any_store

SUBMIT = "/api/v1/task/inference"
GOOD = {"input": "x"}
ROUTES = [
    ("GET", "/"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/api/v1/health"),
    ("GET", "/schema"),
    ("GET", "/schema/openapi.json"),
    ("GET", "/openapi.json"),
    ("GET", "/api/v1/task/x"),
    ("POST", SUBMIT),
    ("GET", "/nope"),
    ("PUT", SUBMIT),
    ("HEAD", "/livez"),
    ("OPTIONS", SUBMIT),
]
TIMES = 5
BROWSER_READABLE = {"text/html; charset=utf-8"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_answer_has_a_request_id_and_is_neither_sniffed_nor_stored(edge, method, path):
    reply = edge.ask(method, path, Host=edge.connection.host)
    assert reply.headers["X-Request-Id"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("sent", ["a", "A1._~-", "x" * 128])
def test_the_clients_own_request_id_is_taken_over(edge, sent):
    assert edge.ask("GET", "/nope", X_Request_Id=sent).json["request_id"] == sent


@pytest.mark.parametrize(
    "sent", [None, "", "x" * 129, "a b", "a\tb", "ü", '"a"', "<a>", ["a", "b"]]
)
def test_a_request_id_that_is_not_safe_to_repeat_is_replaced(edge, sent):
    first, second = (edge.ask("GET", "/nope", X_Request_Id=sent).json for _ in range(2))
    assert first["request_id"] != second["request_id"]
    assert first["request_id"].isascii()
    assert first["request_id"] != sent


# --- one line a request ------------------------------------------------------------------------


def test_every_request_leaves_one_line_without_query_or_body(edge, logged):
    reply = edge.submit(b'{"input": "a secret text"}', X_Request_Id="mine")
    edge.ask("GET", "/nope?token=secret", X_Request_Id="other")
    # The line is written after the answer; the next request's answer comes after that.
    edge.ask("GET", "/livez", X_Request_Id="last")
    lines = [event for event in logged if event.get("request_id") in ("mine", "other")]
    assert [line.pop("duration_ms") >= 0 for line in lines] == [True, True]
    shared = {"event": "request", "log_level": "info"}
    assert lines == [
        shared | {"method": "POST", "path": SUBMIT, "status": 202, "request_id": "mine"},
        shared | {"method": "GET", "path": "/nope", "status": 404, "request_id": "other"},
    ]
    assert reply.status == 202
    assert "secret" not in str(logged)


def test_a_long_path_makes_no_long_line(edge, logged):
    edge.ask("GET", "/" + "x" * 10_000, X_Request_Id="long")
    edge.ask("GET", "/livez")
    [line] = [event for event in logged if event.get("request_id") == "long"]
    assert len(line["path"]) <= 200


def test_a_path_is_cut_before_the_router_remembers_it():
    routed = []

    async def app(scope, receive, send):
        routed.append(scope["path"])

    async def unused(*_: Any) -> Any:
        raise AssertionError("nothing is read or sent")

    scope: Any = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "headers": [(b"host", b"localhost")],
    }
    for path in ("/" + "x" * 100_000, "/" + "%41" * 100_000):
        whole = {"path": path, "raw_path": path.encode(), "state": {}}
        asyncio.run(
            Edge(app, SecuritySettings(), Requests(CollectorRegistry()))(
                scope | whole, unused, unused
            )
        )
    assert [len(path) <= 1024 for path in routed] == [True, True]


# --- what is left of a request ------------------------------------------------------------------


@pytest.fixture
def no_collector():
    """Nothing is freed but what nobody refers to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def served_and_kept():
    return sum(type(kept) is RequestResponseCycle for kept in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("GET", "{task}"), ("GET", "{task}/events")])
def test_nothing_of_a_request_is_left_to_the_collector_of_cycles(edge, method, path):
    task = edge.connect().submit(b'{"input": "x"}')
    edge.complete(task)
    kept = edge.call(served_and_kept)
    for _ in range(TIMES):
        edge.connect().ask(
            method,
            path.format(task=task.headers["Location"]),
            b'{"input": "x"}' if method == "POST" else None,
            Prefer=None if method == "POST" else "wait=1",
            Connection="close",
        )
    assert edge.call(served_and_kept) < kept + TIMES  # the last one may still be closing


# --- Host --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"]
)
def test_loopback_names_are_taken_with_any_port(edge, host):
    assert edge.ask("GET", "/", Host=host).status == 200


FOREIGN_HOSTS = [
    *["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"],
    *["localhost:x", "localhost@evil.example", "0.0.0.0", "[::2]", "::1", "", " ", None, "ü"],
    *["a" * 5_000, ["localhost", "evil.example"], ["evil.example", "localhost"]],
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_any_other_host_is_refused_whatever_the_route(edge, host):
    for method, path in ROUTES:
        reply = edge.ask(method, path, Host=host)
        if path in ("/livez", "/readyz"):
            assert reply.status in (200, 405)
        else:
            assert reply.status == 400
            assert method == "HEAD" or reply.code == "host_not_allowed"


def test_a_list_of_hosts_replaces_the_loopback_names(make_edge):
    edge = make_edge(security={"allowed_hosts": ["Tasks.example"]})
    assert edge.ask("GET", "/", Host="tasks.EXAMPLE:80").status == 200
    assert edge.ask("GET", "/", Host="localhost").code == "host_not_allowed"


# --- Origin ------------------------------------------------------------------------------------


def test_a_page_of_the_service_itself_may_call_it(edge):
    own = f"http://{edge.connection.host}"
    assert edge.submit(GOOD, Origin=own, Sec_Fetch_Site="same-origin").status == 202


FOREIGN_ORIGINS = [
    *["http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1", "null", "", "http://"],
    *["http://localhost", "ü", ["http://evil.example", "null"]],
]


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_origin_is_refused_whatever_the_method(edge, origin):
    for method, path in ROUTES:
        reply = edge.ask(method, path, Origin=origin)
        assert reply.status == 403
        assert method == "HEAD" or reply.code == "origin_not_allowed"


def test_a_cross_site_request_without_an_origin_is_refused_too(edge):
    for method, path in ROUTES:
        assert edge.ask(method, path, Sec_Fetch_Site="cross-site").status == 403
    for site in ("same-origin", "same-site", "none"):
        assert edge.ask("GET", "/livez", Sec_Fetch_Site=site).status == 200


def test_a_refused_request_changes_nothing(edge):
    before = edge.do(edge.store.counts())
    edge.submit(GOOD, Origin="http://evil.example")
    edge.submit(GOOD, Host="evil.example")
    assert edge.do(edge.store.counts()) == before


def test_an_allowed_origin_may_call_and_its_browser_is_told_so(make_edge):
    origin = "https://app.example"
    edge = make_edge(security={"allowed_origins": [origin]})
    asked = edge.ask("OPTIONS", SUBMIT, Origin=origin, Access_Control_Request_Method="POST")
    assert asked.status in (200, 204)
    assert asked.headers["Access-Control-Allow-Origin"] == origin
    reply = edge.submit(GOOD, Origin=origin, Sec_Fetch_Site="cross-site")
    assert reply.status == 202
    assert reply.headers["Access-Control-Allow-Origin"] == origin
    assert edge.submit(GOOD, Origin="https://other.example").code == "origin_not_allowed"
