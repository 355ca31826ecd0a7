"""Submit a task, look at it: what the three routes of the API answer when all is well."""

import json
import re

import pytest

SUBMIT = "/api/v1/task/inference"
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
SEED = '{"input": "这是一个测试输入", "options": {"model": "gpt-3.5-turbo", "temperature": 0.7}}'


def test_a_task_is_accepted_with_its_id_its_place_and_when_to_look(edge):
    reply = edge.submit(SEED.encode())
    task_id = reply.json["task_id"]
    assert reply.status == 202
    assert reply.json == {"task_id": task_id, "status": "pending"}
    assert reply.headers["Location"] == f"/api/v1/task/{task_id}"
    assert 1 <= int(reply.headers["Retry-After"]) <= 60


def test_a_new_task_shows_every_field_and_null_where_there_is_no_value_yet(edge):
    body = {
        "input": "x",
        "options": {"model": "m"},
        "timeout_seconds": 1.5,
        "max_attempts": 2,
        "metadata": {"team": "a"},
    }
    reply = edge.submit(body)
    task = edge.ask("GET", reply.headers["Location"]).json
    assert re.fullmatch(TIMESTAMP, task.pop("created_at"))
    assert task == {
        "task_id": reply.json["task_id"],
        "status": "pending",
        "result": None,
        "started_at": None,
        "completed_at": None,
        "error": None,
        "done": False,
        "executor": "echo",
        "model": "m",
        "attempt": 0,
        "failures": 0,
        "max_attempts": 2,
        "timeout_seconds": 1.5,
        "usage": None,
        "metadata": {"team": "a"},
    }


def test_a_finished_task_shows_the_stored_text_of_its_result_unchanged(edge):
    reply = edge.submit(SEED.encode())
    edge.complete(reply, b'{"output": [1.50, "\\u0000"]}')
    answer = edge.ask("GET", reply.headers["Location"])
    assert b'"result":{"output": [1.50, "\\u0000"]}' in answer.body
    assert answer.json["status"] == "completed"
    assert answer.json["done"] is True
    for name in ("created_at", "started_at", "completed_at"):
        assert re.fullmatch(TIMESTAMP, answer.json[name])


def test_a_task_is_run_and_shows_its_result(service, eventually):
    reply = service.submit(SEED.encode())
    task = eventually(lambda: finished(service, reply))
    assert task["result"] == {"output": "Processed input: 这是一个测试输入"}
    assert (task["status"], task["attempt"], task["failures"]) == ("completed", 1, 0)


def finished(service, reply):
    task = service.ask("GET", reply.headers["Location"]).json
    return task if task["done"] else None


@pytest.mark.parametrize(
    "given",
    [
        "",
        "\0 is fine in a text",
        [{"role": "user", "content": "hi"}],
        [{"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "extra"}],
        [{"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool"}],
        {},
        {"any": ["JSON", 1, 1.5, True, None, {"deep": {}}]},
        {"limits": [2**63 - 1, -(2**63), 1.7976931348623157e308, 5e-324, 1e22]},
    ],
)
def test_every_kind_of_input_is_taken_and_kept_as_it_is(edge, given):
    reply = edge.submit({"input": given})
    assert reply.status == 202
    claim = edge.claim(reply)
    assert json.loads(claim.input) == given
    assert claim.options == b"{}"


def test_options_that_the_service_does_not_know_are_kept_for_the_executor(edge):
    options = {"model": "m", "temperature": 0.7, "stop": ["a"], "nested": {"x": None}}
    reply = edge.submit({"input": "x", "options": options})
    claim = edge.claim(reply)
    assert json.loads(claim.options) == options


def test_null_counts_as_left_out(edge):
    names = ["options", "timeout_seconds", "max_attempts", "metadata"]
    reply = edge.submit({"input": "x"} | dict.fromkeys(names))
    task = edge.ask("GET", reply.headers["Location"]).json
    assert (task["model"], task["metadata"]) == (None, {})
    assert (task["timeout_seconds"], task["max_attempts"]) == (300, 3)
    assert edge.claim(reply).options == b"{}"


def test_a_whole_number_may_be_written_with_a_point(edge):
    reply = edge.submit(b'{"input": "x", "max_attempts": 2.0, "timeout_seconds": 7}')
    answer = edge.ask("GET", reply.headers["Location"])
    assert b'"max_attempts":2,' in answer.body


def test_what_is_at_its_bounds_is_taken(edge):
    body = {
        "input": "x",
        "options": {"model": "m" * 256},
        "timeout_seconds": 300,
        "max_attempts": 10,
        "metadata": {f"{number:064}": "ü" * 512 for number in range(16)},
    }
    assert edge.submit(body).status == 202


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'],
)
def test_json_in_utf_8_is_taken_however_it_is_written(edge, media_type):
    assert edge.submit({"input": "x"}, Content_Type=media_type).status == 202


def test_a_body_in_chunks_is_taken(edge):
    head = edge.connection.head(
        "POST", SUBMIT, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    )
    edge.connection.send(head, b'8\r\n{"input"\r\n', b'5\r\n:"x"}\r\n', b"0\r\n\r\n")
    assert edge.connection.reply().status == 202


def test_headers_of_features_to_come_are_passed_over(edge):
    reply = edge.submit({"input": "x"}, Idempotency_Key="a", Prefer="wait=1")
    assert reply.status == 202


def test_health_counts_the_tasks_of_every_state(make_edge):
    edge = make_edge()
    edge.complete(edge.submit({"input": "x"}), b'{"output": "x"}')
    edge.submit({"input": "y"})
    reply = edge.ask("GET", "/api/v1/health")
    assert reply.status == 200
    assert reply.json == {
        "status": "healthy",
        "version": "1.0.0",
        "tasks_count": 2,
        "app_name": "task-agent",
    }


def test_the_first_page_links_to_what_there_is(edge):
    links = edge.ask("GET", "/").json
    assert links.pop("app_name") == "task-agent"
    allowed = {edge.ask("GET", path).status for path in links.values()}
    assert allowed == {200, 405}


def test_the_documentation_page_loads_nothing_from_elsewhere(edge):
    page = edge.ask("GET", "/schema")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert not re.search(rb"https?://|src=|@import|url\(", page.body)
