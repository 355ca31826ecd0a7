"""What each endpoint of an OpenAI-compatible API is sent, and what of its answers is kept."""

import asyncio

import msgspec
import pytest

from adapters.executors.openai_compatible import OpenAICompatibleExecutor, OpenAICompatibleOptions
from adapters.testing.executor_contract import attempt_of, result_of
from adapters.testing.upstream import FakeUpstream
from domain.errors import ExecutorFailed, ResultTooLarge
from domain.inference import Usage

USER = [{"role": "user", "content": "hi"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def run(endpoint, value="hello there", behaviour=None, limit=1024 * 1024, **settings):
    """The result of one attempt, and the request that the upstream saw."""
    options = {"model": "m", "temperature": 0.5, "stream": False}

    async def scene():
        async with FakeUpstream({"m": behaviour} if behaviour else None) as upstream:
            chosen = OpenAICompatibleOptions(
                base_url=upstream.base_url, endpoint=endpoint, **settings
            )
            async with OpenAICompatibleExecutor(chosen) as executor:
                request = attempt_of(value, options=options, max_result_bytes=limit)
                return await result_of(executor, request), upstream.requests[0]

    return asyncio.run(scene())


def streaming(*events):
    """A behaviour: these events, as JSON, and the end mark."""

    async def behaviour(exchange):
        await exchange.stream_head()
        for event in events:
            await exchange.event(msgspec.json.encode(event))
        await exchange.event(b"[DONE]")

    return behaviour


def whole(answer):
    async def behaviour(exchange):
        await exchange.whole(msgspec.json.encode(answer))

    return behaviour


def delta(finish_reason=None, **message):
    return {"choices": [{"index": 0, "delta": message, "finish_reason": finish_reason}]}


def tool_piece(index, **fields):
    return delta(tool_calls=[{"index": index, **fields}])


def ended(kind="response.completed", **response):
    return {"type": kind, "response": {"output": [], "status": "completed", **response}}


@pytest.mark.parametrize(
    ("endpoint", "value", "path", "sent"),
    [
        ("chat_completions", "hi", "/chat/completions", {"messages": USER, **STREAMED}),
        ("chat_completions", USER, "/chat/completions", {"messages": USER, **STREAMED}),
        ("completions", "hi", "/completions", {"prompt": "hi", **STREAMED}),
        ("completions", {"prompt": "hi"}, "/completions", {"prompt": "hi", **STREAMED}),
        ("responses", "hi", "/responses", {"input": "hi", "stream": True}),
        ("responses", USER, "/responses", {"input": USER, "stream": True}),
        ("embeddings", "hi", "/embeddings", {"input": "hi"}),
        ("embeddings", {"input": "hi"}, "/embeddings", {"input": "hi"}),
    ],
)
def test_each_endpoint_is_asked_in_its_own_words_and_to_stream_if_it_can(
    endpoint, value, path, sent
):
    _, seen = run(endpoint, value)
    assert seen.path == f"/v1{path}"
    assert seen.body == {"model": "m", "temperature": 0.5, **sent}


@pytest.mark.parametrize("endpoint", ["completions", "responses"])
def test_an_endpoint_is_not_asked_to_stream_where_the_settings_say_so(endpoint):
    result, seen = run(endpoint, stream=False)
    assert seen.body["stream"] is False
    assert (result.output, result.usage) == ("hello there", Usage(2, 2, 4))


@pytest.mark.parametrize("endpoint", ["chat_completions", "completions", "responses"])
def test_the_text_and_the_usage_are_taken_over_from_each(endpoint):
    result, _ = run(endpoint, "one two three")
    assert (result.output, result.usage) == ("one two three", Usage(3, 3, 6))


# --- chat completions and completions --------------------------------------------------------


def test_pieces_of_tool_calls_are_put_together_by_their_index():
    result, _ = run(
        "chat_completions",
        behaviour=streaming(
            tool_piece(1, id="call_2", function={"name": "add", "arguments": ""}),
            tool_piece(0, id="call_1", type="function", function={"name": "add"}),
            tool_piece(1, function={"arguments": "{}"}),
            tool_piece(1, id=None, function=None),
            tool_piece(0, function={"arguments": '{"a"'}),
            tool_piece(0, function={"arguments": ": 1}"}),
            delta("tool_calls"),
        ),
    )
    second = {"id": "call_2", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    assert result.output == ""
    assert result.details == {"finish_reason": "tool_calls", "tool_calls": [CALL, second]}


def test_tool_calls_of_a_whole_message_are_kept_too():
    message = {"content": None, "tool_calls": [CALL]}
    answer = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    result, _ = run("chat_completions", behaviour=whole(answer))
    assert result.details == {"finish_reason": "tool_calls", "tool_calls": [CALL]}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_stands_beside_the_output_and_is_no_part_of_it(name):
    events = [delta(**{name: "let me "}), delta(**{name: "see"}), delta("stop", content="42")]
    result, _ = run("chat_completions", behaviour=streaming(*events))
    assert result.output == "42"
    assert result.details == {"finish_reason": "stop", "reasoning": "let me see"}


def test_what_the_backend_does_not_tell_is_left_out():
    result, _ = run("chat_completions")
    assert result.details == {}


def test_the_finish_reason_of_a_completion_is_kept():
    choice = {"index": 0, "text": "x", "finish_reason": "length"}
    result, _ = run("completions", behaviour=streaming({"choices": [choice]}))
    assert (result.output, result.details) == ("x", {"finish_reason": "length"})


@pytest.mark.parametrize(
    "event",
    [
        delta(content="x" * 101),
        delta(reasoning="x" * 101),
        tool_piece(0, function={"arguments": "x" * 101}),
        delta(tool_calls=[{"index": number} for number in range(3)]),
    ],
)
def test_all_that_the_result_will_hold_counts_against_its_limit(event):
    with pytest.raises(ResultTooLarge):
        run("chat_completions", behaviour=streaming(event), limit=100)


# --- responses -------------------------------------------------------------------------------


def test_calls_and_reasoning_of_a_response_are_told_as_by_the_other_endpoints():
    output = [
        {"type": "reasoning", "content": None, "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}'},
        {"type": "of a kind that is not known yet"},
    ]
    result, _ = run("responses", behaviour=streaming(ended(output=output)))
    assert result.output == ""
    details = {"finish_reason": "completed", "reasoning": "hm", "tool_calls": [CALL]}
    assert result.details == details


def test_a_response_that_ended_early_is_a_result_that_tells_why():
    incomplete = ended(
        "response.incomplete",
        status="incomplete",
        incomplete_details={"reason": "max_output_tokens"},
        usage={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    )
    piece = {"type": "response.output_text.delta", "delta": "half of"}
    result, _ = run("responses", behaviour=streaming(piece, incomplete))
    assert (result.output, result.usage) == ("half of", Usage(1, 2, 3))
    assert result.details == {"finish_reason": "max_output_tokens"}


@pytest.mark.parametrize(
    "event",
    [
        ended("response.failed", status="failed", error={"code": "server_error", "message": "oh"}),
        {"type": "error", "code": "server_error", "message": "oh"},
        {"type": "error", "error": {"message": "oh"}},
    ],
)
def test_a_response_that_failed_is_a_failure_that_may_be_retried(event):
    with pytest.raises(ExecutorFailed, match="gave up: oh") as caught:
        run("responses", behaviour=streaming(event))
    assert caught.value.retryable


def test_what_a_response_says_besides_its_text_is_skipped():
    events = [
        {"type": "response.created", "response": {"status": "in_progress"}},
        {"type": "response.function_call_arguments.delta", "delta": "{"},
        {"type": "response.output_text.delta", "delta": "text"},
        {"type": "response.output_text.done", "text": "text"},
        ended(),
    ]
    assert run("responses", behaviour=streaming(*events))[0].output == "text"


# --- embeddings ------------------------------------------------------------------------------


def test_a_text_has_one_embedding_and_costs_no_output():
    result, _ = run("embeddings", "one two three")
    assert (result.output, result.usage) == ([3.0, 3.0, 5.0], Usage(3, 0, 3))


def test_a_list_of_texts_has_a_list_of_embeddings_in_its_order():
    data = [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}]
    result, seen = run("embeddings", {"input": ["a", "b"]}, behaviour=whole({"data": data}))
    assert seen.body["input"] == ["a", "b"]
    assert (result.output, result.usage) == ([[1.0], [2.0]], None)


def test_a_list_of_one_text_has_a_list_of_one_embedding():
    answer = {"data": [{"index": 0, "embedding": [1]}]}
    result, _ = run("embeddings", {"input": ["a"]}, behaviour=whole(answer))
    assert result.output == [[1.0]]


def test_an_embedding_beyond_the_limit_is_refused():
    with pytest.raises(ResultTooLarge):
        run("embeddings", "one two three", limit=10)
