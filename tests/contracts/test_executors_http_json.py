"""`http_json` sends and takes what its settings say, from where they say."""

import asyncio

import msgspec
import pytest

from adapters.executors.http_json import HttpJsonExecutor, HttpJsonOptions
from adapters.testing.executor_contract import attempt_of, result_of
from adapters.testing.misbehaviour import status
from adapters.testing.upstream import FakeUpstream
from domain.errors import (
    ExecutorError,
    ExecutorFailed,
    ExecutorUnavailable,
    InvalidInput,
    UpstreamRejected,
)
from domain.inference import Chunk, InferenceResult

SECRET = "sk-very-secret-0123456789"


async def attempt(upstream, value, options, path="/v1/whole", **settings):
    chosen = HttpJsonOptions(**{"url": upstream.base_url.removesuffix("/v1") + path, **settings})
    async with HttpJsonExecutor(chosen) as executor:
        return await result_of(executor, attempt_of(value, options={"model": "m", **options}))


def run(value="hello", behaviour=None, task_options=None, **settings):
    """The result of one attempt, and the request that the upstream saw."""

    async def scene():
        behaviours = {"m": behaviour, "None": behaviour} if behaviour else None
        async with FakeUpstream(behaviours) as upstream:
            result = await attempt(upstream, value, task_options or {}, **settings)
            return result, upstream.requests[0]

    return asyncio.run(scene())


def answering(answer, content_type="application/json"):
    """A behaviour: this answer, as JSON unless it is bytes."""

    async def behaviour(exchange):
        body = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        await exchange.whole(body, content_type=content_type)

    return behaviour


# --- what is sent ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "body"),
    [
        ({}, {"input": "hi", "options": {"model": "m", "n": 1}}),
        ({"options_pointer": None}, {"input": "hi"}),
        ({"options_pointer": ""}, {"input": "hi", "model": "m", "n": 1}),
        (
            {"input_pointer": "/q/text", "options_pointer": "/q/how", "body": {"q": {"a": 1}}},
            {"q": {"a": 1, "text": "hi", "how": {"model": "m", "n": 1}}},
        ),
        (
            {"input_pointer": "/rows/1/0", "options_pointer": None, "body": {"rows": [1, [2, 3]]}},
            {"rows": [1, ["hi", 3]]},
        ),
        (
            {"input_pointer": "/n", "options_pointer": "", "body": {"n": 0, "x": 0}},
            {"n": "hi", "model": "m", "x": 0},
        ),
    ],
)
def test_the_body_of_the_settings_takes_in_the_options_and_then_the_input(settings, body):
    _, seen = run("hi", answering({}), {"n": 1}, **settings)
    assert seen.body == body


def test_an_empty_input_pointer_sends_the_input_alone():
    _, seen = run({"a": [1]}, answering({}), input_pointer="")
    assert seen.body == {"a": [1]}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_the_method_the_headers_and_the_query_are_those_of_the_settings(method):
    _, seen = run(
        behaviour=answering({}), method=method, headers={"X-Key": SECRET}, path="/v2/run?fast=1"
    )
    assert (seen.method, seen.path) == (method, "/v2/run?fast=1")
    assert seen.headers["x-key"] == SECRET
    assert seen.headers["content-type"] == "application/json"


def test_options_that_leave_no_place_for_the_input_are_refused():
    settings = {"input_pointer": "/q/text", "options_pointer": "", "body": {"q": {}}}
    with pytest.raises(InvalidInput):
        run(task_options={"q": "text"}, **settings)


def test_nothing_in_a_request_changes_where_it_goes():
    task_options = {"url": "http://127.0.0.1:9", "base_url": "http://127.0.0.1:9", "method": "PUT"}
    _, seen = run(behaviour=answering({}), task_options=task_options, options_pointer="")
    assert (seen.method, seen.path) == ("POST", "/v1/whole")


def test_a_redirect_is_not_followed():
    async def elsewhere(exchange):
        await exchange.whole(b"", status=307, location="/elsewhere")

    with pytest.raises(UpstreamRejected):
        run(behaviour=elsewhere)


# --- what is taken over ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pointer", "output"),
    [
        ("", {"a": [{"b/c": "x", "~": None}, 2]}),
        ("/a", [{"b/c": "x", "~": None}, 2]),
        ("/a/0/b~1c", "x"),
        ("/a/0/~0", None),
        ("/a/1", 2),
    ],
)
def test_the_output_is_what_stands_at_its_place(pointer, output):
    answer = answering({"a": [{"b/c": "x", "~": None}, 2]})
    result, _ = run(behaviour=answer, output_pointer=pointer)
    assert result == InferenceResult(output)


@pytest.mark.parametrize("pointer", ["/b", "/a/2", "/a/01", "/a/-", "/a/0/b", "/a/x"])
def test_an_answer_with_nothing_at_that_place_is_no_result(pointer):
    with pytest.raises(ExecutorFailed, match=f"nothing at '{pointer}'") as caught:
        run(behaviour=answering({"a": [1, 2]}), output_pointer=pointer)
    assert not caught.value.retryable


LINES = b'{"response": "one", "done": false}\n\n{"x": 1}\r\n{"response": " two"}\n{"done": true}'
EVENTS = b'data: {"response": "one"}\n\ndata: {"x": 1}\n\ndata: {"response": " two"}\n\n'


def pieces_of(behaviour, **settings):
    async def scene():
        async with FakeUpstream({"m": behaviour}) as upstream:
            chosen = HttpJsonOptions(url=f"{upstream.base_url}/x", **settings)
            async with HttpJsonExecutor(chosen) as executor:
                request = attempt_of("x", options={"model": "m"})
                return [piece async for piece in executor.run(request)]

    return asyncio.run(scene())


@pytest.mark.parametrize("end", [None, "/done"])
def test_lines_are_pieces_until_the_one_that_says_it_is_the_last(end):
    behaviour = answering(LINES, "application/x-ndjson")
    settings = {"stream": "json_lines", "piece_pointer": "/response", "end_pointer": end}
    expected = [Chunk("one"), Chunk(" two"), InferenceResult("one two")]
    assert pieces_of(behaviour, **settings) == expected


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n", b"data: [DONE]"])
def test_events_are_pieces_until_an_end_mark_or_the_end(end):
    behaviour = answering(EVENTS + end, "text/event-stream")
    expected = [Chunk("one"), Chunk(" two"), InferenceResult("one two")]
    assert pieces_of(behaviour, stream="sse", piece_pointer="/response") == expected


def test_what_comes_after_the_end_is_not_waited_for():
    async def never_closes(exchange):
        await exchange.head(content_type="application/x-ndjson")
        await exchange.send(b'{"response": "one", "done": true}\n')
        await exchange.hang()

    settings = {"stream": "json_lines", "piece_pointer": "/response", "end_pointer": "/done"}
    assert pieces_of(never_closes, **settings)[-1] == InferenceResult("one")


@pytest.mark.parametrize("cut", [LINES[:20], LINES[:-1], LINES[:-16]])
def test_lines_that_stop_before_their_end_may_be_retried(cut):
    settings = {"stream": "json_lines", "piece_pointer": "/response", "end_pointer": "/done"}
    with pytest.raises(ExecutorFailed) as caught:
        pieces_of(answering(cut, "application/x-ndjson"), **settings)
    assert caught.value.retryable


def test_an_error_at_its_place_fails_the_attempt_in_spite_of_the_status():
    answer = answering({"output": "x", "error": "out of memory"})
    with pytest.raises(ExecutorFailed, match="the backend gave up: out of memory"):
        run(behaviour=answer, error_pointer="/error")
    fine = answering({"output": "x", "error": None})
    assert run(behaviour=fine, output_pointer="/output", error_pointer="/error")[0].output == "x"


def test_a_piece_that_is_no_text_is_no_result():
    with pytest.raises(ExecutorFailed, match="no text at '/response'"):
        pieces_of(answering(b'{"response": 1}\n'), stream="json_lines", piece_pointer="/response")


# --- retries, probes, settings ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "retried"), [(429, True), (503, True), (408, True), (400, False), (404, False)]
)
def test_refusals_mean_the_same_as_everywhere(code, retried):
    with pytest.raises(ExecutorError, match=f"answered {code}: so it is") as caught:
        run(behaviour=status(code))
    assert caught.value.retryable is retried


def test_an_upstream_cannot_show_our_secrets():
    with pytest.raises(UpstreamRejected) as caught:
        run(behaviour=status(401, message=f"not {SECRET}"), headers={"X-Key": SECRET})
    assert "***" in caught.value.message
    assert SECRET not in caught.value.message


async def test_a_probe_gets_the_health_path_or_else_only_connects():
    async with FakeUpstream({"/health": status(503)}) as upstream:
        url = f"{upstream.base_url}/run"
        async with HttpJsonExecutor(HttpJsonOptions(url=url)) as executor:
            await executor.check()
        assert upstream.probes == []
        async with HttpJsonExecutor(HttpJsonOptions(url=url, health_path="/health")) as executor:
            with pytest.raises(ExecutorUnavailable, match="answered 503"):
                await executor.check()
        assert [(probe.method, probe.path) for probe in upstream.probes] == [("GET", "/health")]
    async with HttpJsonExecutor(HttpJsonOptions(url=url)) as executor:
        with pytest.raises(ExecutorUnavailable, match="ConnectionRefusedError"):
            await executor.check()


async def test_a_probe_of_a_host_that_cannot_be_is_answered_like_any_other():
    options = HttpJsonOptions(url=f"http://{'x' * 70}.example")
    async with HttpJsonExecutor(options) as executor:
        with pytest.raises(ExecutorUnavailable, match="no answer: "):
            await executor.check()


def test_several_urls_stand_in_for_each_other():
    async def scene():
        async with FakeUpstream() as gone:
            missing = f"{gone.base_url}/whole"
        async with FakeUpstream() as upstream:
            urls = [missing, f"{upstream.base_url}/whole"]
            return await attempt(upstream, "hello", {}, url=urls, output_pointer="/output")

    assert asyncio.run(scene()).output == "hello"


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://models.example"},
        {"url": "http://user:secret@models.example"},
        {"url": []},
        {"method": "DELETE"},
        {"method": "GET"},
        {"input_pointer": "input"},
        {"output_pointer": "/a~"},
        {"end_pointer": "done"},
        {"input_pointer": "/a/b", "body": {"a": "secret"}},
        {"input_pointer": "/a/1", "body": {"a": ["secret"]}},
        {"stream": "yes"},
        {"health_path": "health"},
        {"headers": {"X-Team": "secret\r\n"}},
        {"ca_file": "/no/such/file"},
    ],
)
def test_wrong_options_are_refused_without_showing_them(wrong):
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"url": "http://a"} | wrong, HttpJsonOptions)
    assert "secret" not in str(caught.value)


def test_the_options_do_not_show_their_secrets():
    options = HttpJsonOptions(url="http://a", headers={"X-Token": SECRET}, body={"key": SECRET})
    assert SECRET not in f"{options} {options!r}"
