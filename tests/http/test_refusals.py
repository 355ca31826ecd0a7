"""The error table, row by row, on a real port."""

import json

import pytest

from domain.errors import StorageFull, StoreUnavailable
from domain.service import Caller
from domain.task import TaskStatus
from entrypoints.http import controllers
from entrypoints.http import edge as edge_module

SUBMIT = "/api/v1/task/inference"
GOOD = {"input": "x"}
MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}


def assert_refused(reply, status, code, paths=()):
    assert (reply.status, reply.code) == (status, code), reply.body
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json.keys() == MEMBERS
    assert reply.json["status"] == status
    assert reply.json["request_id"] == reply.headers["X-Request-Id"]
    assert reply.paths == list(paths)


# --- the body as text --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *[b"", b" ", b"{", b'{"input": "x",}', b"{'input': 1}", b'{"input": NaN}'],
        *[b'{"input": 01}', b'{"input": "x"} {}', b'\xef\xbb\xbf{"input": "x"}'],
        *[b'{"input": "\x01"}', b'{"input": +1}'],
    ],
)
def test_what_is_not_json_is_invalid_json(edge, text):
    assert_refused(edge.submit(text), 400, "invalid_json")


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82"]
)
def test_what_is_not_utf_8_is_invalid_encoding(edge, text):
    assert_refused(edge.submit(b'{"input": "%s"}' % text), 400, "invalid_encoding")


@pytest.mark.parametrize(
    "text",
    [
        b'{"input": "\\ud800"}',
        b'{"input": "\\udc00 \\ud800"}',
        b'{"input": {"\\uDFFF": 1}}',
        b'{"input": "x", "options": {"a": ["\\ud83d"]}}',
        b'{"input": "x", "metadata": {"a": "\\ud83d\\u0041"}}',
    ],
)
def test_a_lone_surrogate_is_invalid_encoding(edge, text):
    assert_refused(edge.submit(text), 400, "invalid_encoding")


def test_a_pair_of_surrogates_is_a_character(edge):
    assert edge.submit(b'{"input": "\\ud83d\\ude00"}').status == 202


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("levels", [65, 1_000, 100_000])
def test_more_than_64_levels_are_too_deep(edge, opening, closing, levels):
    inner = opening * (levels - 1) + b"1" + closing * (levels - 1)
    assert_refused(edge.submit(b'{"input": %s}' % inner), 400, "too_deep")
    assert_refused(edge.submit(b'{"input": %s' % (opening * levels)), 400, "too_deep")


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_64_levels_are_fine_and_brackets_in_strings_are_none(edge, opening, closing):
    inner = opening * 62 + b'"%s\\"["' % (b"[{" * 100) + closing * 62
    assert edge.submit(b'{"input": {"a": %s}}' % inner).status == 202


# --- the body as a request ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ([], [""]),
        ("x", [""]),
        ({}, ["/input"]),
        ({"input": None}, ["/input"]),
        ({"input": 1}, ["/input"]),
        ({"input": []}, ["/input"]),
        ({"input": [1, {"role": "user"}, {}]}, ["/input/0", "/input/2"]),
        ({"input": [{"role": 1}]}, ["/input/0/role"]),
        ({"input": [{"role": "user", "content": [1]}]}, ["/input/0/content/0"]),
        (GOOD | {"options": []}, ["/options"]),
        (GOOD | {"options": {"model": 1}}, ["/options/model"]),
        (GOOD | {"options": {"model": "m" * 257}}, ["/options/model"]),
        (GOOD | {"options": {"model": "a\0"}}, ["/options/model"]),
        (GOOD | {"timeout_seconds": 0}, ["/timeout_seconds"]),
        (GOOD | {"timeout_seconds": -1}, ["/timeout_seconds"]),
        (GOOD | {"timeout_seconds": 300.1}, ["/timeout_seconds"]),
        (GOOD | {"timeout_seconds": "1"}, ["/timeout_seconds"]),
        (GOOD | {"timeout_seconds": True}, ["/timeout_seconds"]),
        (GOOD | {"max_attempts": 0}, ["/max_attempts"]),
        (GOOD | {"max_attempts": 11}, ["/max_attempts"]),
        (GOOD | {"max_attempts": 1.5}, ["/max_attempts"]),
        (GOOD | {"max_attempts": "3"}, ["/max_attempts"]),
        (GOOD | {"max_attempts": True}, ["/max_attempts"]),
        (GOOD | {"metadata": []}, ["/metadata"]),
        (GOOD | {"metadata": {"": "x"}}, ["/metadata/"]),
        (GOOD | {"metadata": {"a": 1, "b": "x", "c": None}}, ["/metadata/a", "/metadata/c"]),
        (GOOD | {"metadata": {"k": "x" * 513}}, ["/metadata/k"]),
        (GOOD | {"metadata": {"k": "\0"}}, ["/metadata/k"]),
        (GOOD | {"metadata": dict.fromkeys("abcdefghijklmnopq", "x")}, ["/metadata"]),
        (GOOD | {"metadata": {"a/b~c": 1}}, ["/metadata/a~1b~0c"]),
        (GOOD | {"priority": 11}, ["/priority"]),
        (GOOD | {"priority": 0.5}, ["/priority"]),
        (GOOD | {"delay_seconds": -1}, ["/delay_seconds"]),
        (GOOD | {"run_at": "2023-10-24T08:15:30"}, ["/run_at"]),
        (GOOD | {"run_at": "0001-01-01T00:00:00+23:59"}, ["/run_at"]),
        (GOOD | {"run_at": "9999-12-31T23:59:59-23:59"}, ["/run_at"]),
        (GOOD | {"delay_seconds": 1, "run_at": "2023-10-24T08:15:30Z"}, ["/run_at"]),
        (GOOD | {"deadline_seconds": 0, "webhook": {}}, ["/deadline_seconds", "/webhook"]),
        (GOOD | {"temprature": 0.7, "Input": "x"}, ["/temprature", "/Input"]),
        ({"input": {"a": [{"b": 2**63}]}}, ["/input/a/0/b"]),
        (GOOD | {"options": {"seed": -(2**63) - 1}}, ["/options/seed"]),
        ({"input": {"a\0": {"b\0": 1}}}, ["/input/a\0", "/input/a\0/b\0"]),
        (
            {"options": 1, "timeout_seconds": "x", "max_attempts": 11, "metadata": 1, "x": 1},
            ["/input", "/options", "/timeout_seconds", "/max_attempts", "/metadata", "/x"],
        ),
    ],
)
def test_every_fault_is_named_with_its_path(edge, body, paths):
    assert_refused(edge.submit(body), 400, "invalid_request", paths)


@pytest.mark.parametrize(
    "number", [b"1e400", b"-1e400", b"1" * 400 + b".5", b"9" * 5_000, b"18446744073709551616"]
)
def test_numbers_that_no_64_bits_hold_are_named_with_their_path(edge, number):
    texts = {
        "/input/a": b'{"input": {"a": %s}}',
        "/options/a/0": b'{"input": "x", "options": {"a": [%s]}}',
        "/timeout_seconds": b'{"input": "x", "timeout_seconds": %s}',
    }
    for path, text in texts.items():
        assert_refused(edge.submit(text % number), 400, "invalid_request", [path])


@pytest.mark.parametrize(
    "text",
    [
        b'{"max_attempts": "x", "input": "x", "max_attempts": 3}',
        b'{"input": {"a": 1e400, "a": 1}}',
        b'{"input": "x", "options": {"a": 1e400, "a": 1}}',
    ],
)
def test_a_field_given_twice_is_refused_for_either_of_its_values(edge, text):
    reply = edge.submit(text)
    assert (reply.status, reply.code) == (400, "invalid_request")


def test_long_names_and_many_faults_make_no_long_answers(edge):
    long_name = edge.submit(GOOD | {"y" * 10_000: 1})
    assert_refused(long_name, 400, "invalid_request", ["/" + "y" * 99])
    many = edge.submit(GOOD | {f"y{number}": 1 for number in range(50_000)})
    assert many.code == "invalid_request"
    assert len(many.body) < 5_000
    assert sum(len(path) for path in many.paths) <= 100
    messages = edge.submit({"input": [1] * 1_000})
    assert len(messages.body) < 10_000
    assert "more" in messages.json["errors"][-1]["message"]


# --- the head ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/problem+json",
        "application/json, application/json",
        "application/json; charset=latin-1",
        ["application/json", "application/json"],
        ["application/json", "text/plain"],
    ],
)
def test_anything_but_one_json_media_type_is_unsupported(edge, media_type):
    reply = edge.submit(GOOD, Content_Type=media_type)
    assert_refused(reply, 415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x"])
def test_an_encoded_body_is_unsupported(edge, encoding):
    reply = edge.submit(GOOD, Content_Encoding=encoding)
    assert_refused(reply, 415, "unsupported_media_type")


def test_the_identity_is_no_encoding(edge):
    assert edge.submit(GOOD, Content_Encoding="identity").status == 202


def test_a_body_is_taken_up_to_the_limit_and_refused_above_it(make_edge):
    edge = make_edge(server={"max_body_bytes": 100})
    fitting = json.dumps({"input": "x" * (100 - len('{"input": ""}'))}).encode()
    assert len(fitting) == 100
    assert edge.submit(fitting).status == 202
    assert_refused(edge.submit(fitting + b" "), 413, "body_too_large")


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(edge):
    connection = edge.connect()
    head = {"Content-Type": "application/json", "Content-Length": str(10**12)}
    connection.send(connection.head("POST", SUBMIT, head))
    assert_refused(connection.reply(), 413, "body_too_large")
    connection.close()


def test_a_body_in_chunks_is_refused_as_soon_as_it_passes_the_limit(edge):
    connection = edge.connect()
    head = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    connection.send(connection.head("POST", SUBMIT, head))
    chunk = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
    connection.send(chunk * 4, b"1\r\nx\r\n")
    assert_refused(connection.reply(), 413, "body_too_large")
    connection.close()


@pytest.mark.parametrize("closing", ["keep-alive", "close"])
def test_the_answer_to_a_body_far_too_large_arrives_whole(edge, closing):
    connection = edge.connect()
    reply = connection.submit(b"x" * 20_000_000, Connection=closing)
    assert_refused(reply, 413, "body_too_large")
    if closing == "keep-alive":
        assert connection.submit(GOOD).status == 202
    connection.close()


# --- paths, methods, ids -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/api/v1",
        "/api/v2/health",
        "/schema/nope",
        "/docs",
        "/%00",
        "/a%2Fb",
        "/api/v1/task/a/b",
        "/" + "x" * 5_000,
    ],
)
def test_an_unknown_path_is_not_found(edge, path):
    for method in ("GET", "POST"):
        assert_refused(edge.ask(method, path, GOOD), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (SUBMIT, "OPTIONS, POST"),
        ("/api/v1/task/batch", "OPTIONS, POST"),
        ("/api/v1/task", "GET, OPTIONS"),
        ("/api/v1/task/x", "DELETE, GET, OPTIONS"),
        ("/api/v1/task/x/cancel", "OPTIONS, POST"),
        ("/api/v1/task/x/retry", "OPTIONS, POST"),
        ("/api/v1/queue", "GET, OPTIONS"),
        ("/api/v1/health", "GET, OPTIONS"),
        ("/livez", "GET, OPTIONS"),
        ("/readyz", "GET, OPTIONS"),
        ("/", "GET, OPTIONS"),
        ("/openapi.json", "GET, OPTIONS"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(edge, path, allowed):
    wrong = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"}
    for method in wrong - set(allowed.split(", ")):
        reply = edge.ask(method, path)
        assert (reply.status, reply.headers["Allow"]) == (405, allowed), method
        if method != "HEAD":
            assert_refused(reply, 405, "method_not_allowed")
    asked = edge.ask("OPTIONS", path)
    assert (asked.status, asked.headers["Allow"]) == (204, allowed)


def test_unknown_malformed_and_foreign_ids_get_the_same_answer(edge):
    somebody_else = Caller("somebody else")
    foreign = edge.do(edge.tasks.submit(somebody_else, edge.submission("x"))).task.id
    ids = [foreign, "00000000-0000-7000-8000-000000000000", "x", "1", "%00", "..%2F..%2Fetc", "%FF"]
    ids += [
        "x" * 4_000,
        "%E2%80%AE",
        "*",
        "a%20b",
        "%25",
        "null",
        "' OR 1=1 --".replace(" ", "%20"),
    ]
    bodies = []
    for task_id in ids:
        path = f"/api/v1/task/{task_id}"
        for method, asked in [
            *[("GET", path), ("DELETE", path)],
            *[("POST", f"{path}/cancel"), ("POST", f"{path}/retry")],
        ]:
            reply = edge.ask(method, asked)
            assert_refused(reply, 404, "task_not_found")
            assert len(reply.json["instance"]) <= 100
            bodies.append(reply.json | {"instance": "", "request_id": ""})
    assert all(body == bodies[0] for body in bodies)
    assert edge.do(edge.store.get(foreign, None)).status is TaskStatus.PENDING


def test_an_id_may_be_percent_encoded(edge):
    task_id = edge.submit(GOOD).json["task_id"]
    encoded = "".join(f"%{ord(character):02X}" for character in task_id)
    assert edge.ask("GET", f"/api/v1/task/{encoded}").json["task_id"] == task_id


# --- what is the matter with the service ---------------------------------------------------------


def assert_to_be_tried_again(reply, status, code):
    assert_refused(reply, status, code)
    assert 1 <= int(reply.headers["Retry-After"]) <= 60


def test_a_full_queue_takes_no_more(make_edge):
    edge = make_edge(inference={"max_pending_tasks": 1})
    accepted = edge.submit(GOOD)
    assert_to_be_tried_again(edge.submit(GOOD), 429, "queue_full")
    edge.complete(accepted, b'{"output": 1}')
    assert edge.submit(GOOD).status == 202


def test_a_draining_service_takes_nothing_new_and_answers_reads(make_edge):
    edge = make_edge()
    accepted = edge.submit(GOOD)
    edge.tasks.stop_accepting()
    assert_to_be_tried_again(edge.submit(GOOD), 503, "draining")
    assert edge.ask("GET", accepted.headers["Location"]).status == 200


def test_a_store_that_fails_costs_only_the_requests_that_need_it(make_edge):
    edge = make_edge()
    edge.store.fault = StoreUnavailable("no answer")
    assert_to_be_tried_again(edge.submit(GOOD), 503, "store_unavailable")
    assert_to_be_tried_again(edge.ask("GET", "/api/v1/task/x"), 503, "store_unavailable")
    assert edge.ask("GET", "/livez").json == {"status": "alive"}
    edge.store.fault = None
    assert edge.submit(GOOD).status == 202


def test_too_little_room_is_storage_full(make_edge):
    edge = make_edge()
    edge.store.fault = StorageFull(1, 2)
    assert_to_be_tried_again(edge.submit(GOOD), 503, "storage_full")


def test_a_store_that_never_answers_is_unavailable(make_edge, monkeypatch):
    monkeypatch.setattr(edge_module, "REQUEST_SECONDS", 0.2)
    edge = make_edge()
    edge.store.hangs = True
    assert_to_be_tried_again(edge.submit(GOOD), 503, "store_unavailable")
    assert edge.connection.is_closed_by_the_service()


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(make_edge, monkeypatch, caplog):
    monkeypatch.setattr(edge_module, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(edge_module, "LINGER_SECONDS", 0.2)
    connection = make_edge().connection
    head = {"Content-Type": "application/json", "Content-Length": "100"}
    connection.send(connection.head("POST", SUBMIT, head), b'{"input"')
    assert_refused(connection.reply(), 408, "body_incomplete")
    assert connection.is_closed_by_the_service()
    assert caplog.records == []


def test_a_client_that_leaves_in_the_middle_of_its_body_disturbs_nobody(
    make_edge, eventually, logged
):
    edge = make_edge()
    connection = edge.connect()
    head = {"Content-Type": "application/json", "Content-Length": "100"}
    connection.send(connection.head("POST", SUBMIT, head), b'{"input"')
    connection.close()
    eventually(lambda: [event for event in logged if event["event"] == "request"])
    assert edge.submit(GOOD).status == 202
    assert not [event for event in logged if event["log_level"] == "error"]


def test_a_bug_is_an_internal_error_that_shows_nothing_and_logs_its_trace(make_edge, logged):
    edge = make_edge()
    edge.store.fault = ZeroDivisionError("secret")
    reply = edge.submit(GOOD)
    assert_refused(reply, 500, "internal_error")
    assert b"secret" not in reply.body
    [event] = [event for event in logged if event["log_level"] == "error"]
    assert event["exc_info"].args == ("secret",)
    assert event["request_id"] == reply.json["request_id"]


# --- health and readiness ------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [{"fault": StoreUnavailable("gone")}, {"hangs": True}])
def test_health_is_told_within_bounds_when_the_store_cannot_tell(make_edge, monkeypatch, trouble):
    monkeypatch.setattr(controllers, "COUNT_SECONDS", 0.2)
    edge = make_edge()
    vars(edge.store).update(trouble)
    reply = edge.ask("GET", "/api/v1/health")
    assert reply.status == 503
    assert (reply.json["status"], reply.json["tasks_count"]) == ("unhealthy", None)


def test_a_fault_of_the_process_makes_it_unhealthy_and_not_ready(make_edge):
    edge = make_edge()
    assert edge.ask("GET", "/readyz").json == {"status": "ready", "faults": {}}
    edge.readiness.fault("store", "it does not answer")
    health, readiness = edge.ask("GET", "/api/v1/health"), edge.ask("GET", "/readyz")
    assert (health.status, health.json["status"]) == (503, "unhealthy")
    assert health.json["tasks_count"] == 0
    assert readiness.status == 503
    assert readiness.json == {"status": "not_ready", "faults": {"store": "it does not answer"}}
    edge.readiness.clear("store")
    assert edge.ask("GET", "/readyz").status == 200
