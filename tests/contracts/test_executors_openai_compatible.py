"""What `openai_compatible` sends, takes over, refuses and lets go of, at a chat completions API.

How each misbehaviour of a backend ends, with every API, is in `test_executors_misbehaviour.py`.
"""

import asyncio
import socket
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest

from adapters.executors.openai_compatible import OpenAICompatibleExecutor, OpenAICompatibleOptions
from adapters.testing.dialects import usage_of
from adapters.testing.executor_contract import attempt_of, result_of
from adapters.testing.misbehaviour import MISBEHAVIOURS, status
from adapters.testing.upstream import FakeUpstream
from domain.errors import (
    ExecutorError,
    ExecutorFailed,
    ExecutorUnavailable,
    InvalidInput,
    ResultTooLarge,
    UpstreamRejected,
)
from domain.inference import Usage

SHORT_TIME_IN_ALL = {"total_timeout_seconds": 0.6}
SECRET = "sk-very-secret-0123456789"
RETRIED, FINAL = True, False


@asynccontextmanager
async def opened(behaviours=MISBEHAVIOURS, **options):
    """A fake upstream, and an executor before it."""
    async with FakeUpstream(behaviours) as upstream:
        settings = OpenAICompatibleOptions(**{"base_url": upstream.base_url, **options})
        async with OpenAICompatibleExecutor(settings) as executor:
            yield upstream, executor


def run(value="hello there", behaviours=MISBEHAVIOURS, settings=None, limit=None, **options):
    """Run one attempt to its end; give its result and the request that the upstream saw."""

    async def scene():
        async with opened(behaviours, **(settings or {})) as (upstream, executor):
            request = attempt_of(value, options=options, max_result_bytes=limit or 1024 * 1024)
            result = await result_of(executor, request)
            return result, upstream.requests[0]

    return asyncio.run(scene())


def failure(behaviour, *, settings=None, limit=None):
    """The error of an attempt whose upstream behaves like this; it must have let go of it."""
    named = {"this": behaviour} if callable(behaviour) else MISBEHAVIOURS
    model = "this" if callable(behaviour) else behaviour

    async def scene():
        async with opened(named, **(settings or {})) as (upstream, executor), asyncio.timeout(20):
            request = attempt_of("x", options={"model": model}, max_result_bytes=limit or 100_000)
            with pytest.raises(ExecutorError) as caught:
                await result_of(executor, request)
            await upstream.until_let_go()
            return caught.value

    return asyncio.run(scene())


# --- what is sent ----------------------------------------------------------------------------


def test_a_text_is_sent_as_one_user_message_and_streamed_with_usage():
    _, seen = run("hello", model="m", temperature=0.5)
    assert seen.path == "/v1/chat/completions"
    assert seen.body == {
        "model": "m",
        "temperature": 0.5,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_list_of_messages_is_sent_as_it_is():
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    _, seen = run(messages)
    assert seen.body["messages"] == messages


def test_an_object_sets_fields_over_the_options_and_these_over_the_defaults():
    message = {"role": "user", "content": "hi"}
    _, seen = run(
        {"messages": [message], "top_p": 3, "model": "other"},
        settings={"defaults": {"top_p": 1, "seed": 1, "stop": ["x"], "model": "default"}},
        top_p=2,
        seed=2,
        model="chosen",
    )
    body = seen.body
    assert (body["top_p"], body["seed"], body["stop"]) == (3, 2, ["x"])
    assert body["model"] == "chosen"


def test_without_a_model_the_default_one_is_asked_for():
    settings = {"defaults": {"model": "default"}}
    assert run(settings=settings)[1].body["model"] == "default"
    assert run(settings=settings, model=None)[1].body["model"] == "default"
    assert "model" not in run()[1].body


def test_a_task_cannot_turn_streaming_off():
    _, seen = run(stream=False, stream_options={"include_usage": False})
    assert seen.body["stream"] is True
    assert seen.body["stream_options"] == {"include_usage": True}


def test_a_backend_that_cannot_stream_is_not_asked_to():
    result, seen = run("one two", settings={"stream": False})
    assert seen.body["stream"] is False
    assert "stream_options" not in seen.body
    assert (result.output, result.usage) == ("one two", Usage(2, 2, 4))


def test_the_key_and_the_headers_of_the_settings_are_sent_and_no_encoding_is_asked_for():
    headers = {"X-Team": "blue", "Accept-Encoding": "gzip", "authorization": "other"}
    _, seen = run(settings={"api_key": SECRET, "headers": headers})
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert seen.headers["x-team"] == "blue"
    assert seen.headers["accept-encoding"] == "identity"


def test_a_request_of_a_mebibyte_and_more_is_sent_whole():
    text = "word" * 400_000
    _, seen = run(text, limit=10_000_000)
    assert seen.body["messages"][0]["content"] == text


@pytest.mark.parametrize("value", [[], ["hi"], {}, {"messages": "hi"}, {"prompt": "hi"}])
def test_an_input_that_is_no_chat_is_refused_before_anything_is_sent(value):
    async def scene():
        async with opened() as (upstream, executor):
            with pytest.raises(InvalidInput):
                await result_of(executor, attempt_of(value))
            assert upstream.requests == []

    asyncio.run(scene())


# --- what is taken over ----------------------------------------------------------------------


def test_the_text_and_the_usage_are_taken_over():
    result, _ = run("one two three")
    assert result.output == "one two three"
    assert result.usage == Usage(input_tokens=3, output_tokens=3, total_tokens=6)


def test_a_plain_answer_of_a_backend_that_ignores_stream_is_taken_too():
    result, _ = run("one two", model="ignore_stream")
    assert (result.output, result.usage) == ("one two", Usage(2, 2, 4))


@pytest.mark.parametrize("model", ["no_usage", "usage_of_another_kind"])
def test_usage_is_never_invented(model):
    result, _ = run(model=model)
    assert (result.output, result.usage) == ("one", None)


def test_usage_that_comes_before_the_last_piece_is_not_forgotten():
    async def usage_first(exchange):
        await exchange.stream_head()
        await exchange.event(msgspec.json.encode({"choices": [], "usage": usage_of("one")}))
        await exchange.piece("one")
        await exchange.event(b"[DONE]")

    result, _ = run(behaviours={"this": usage_first}, model="this")
    assert (result.output, result.usage) == ("one", Usage(1, 1, 2))


def test_only_the_first_choice_is_taken():
    result, _ = run(model="two_choices")
    assert result.output == "one"


@pytest.mark.parametrize("model", ["end_mark_without_a_line_end", "lines_ended_by_cr_lf"])
def test_a_stream_may_be_written_in_every_way_that_the_standard_allows(model):
    result, _ = run(model=model)
    assert result.output == "one"


# --- what is not a result --------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["json_of_another_shape", "no_choices"])
def test_json_that_is_no_completion_is_final(behaviour):
    caught = failure(behaviour)
    assert type(caught) is ExecutorFailed
    assert not caught.retryable


def test_comments_for_ever_end_by_size_or_by_time():
    by_size = failure("comments_for_ever", settings={"max_response_bytes": 1_000_000})
    assert by_size.message == "the result is larger than 1000000 bytes"
    by_time = failure(
        "comments_for_ever", settings=SHORT_TIME_IN_ALL | {"max_response_bytes": 10**12}
    )
    assert type(by_time) is ExecutorFailed
    assert by_time.message == "the backend did not finish within 0.6 seconds"


def test_an_encoded_answer_is_neither_decoded_nor_quoted():
    assert failure("a_gzip_bomb").message.endswith("it is encoded as gzip")
    assert failure("an_error_with_a_gzip_bomb").message == "the backend answered 400"


def test_no_connection_is_retried():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ExecutorUnavailable) as caught:
        run(settings={"base_url": f"http://127.0.0.1:{port}"})
    assert caught.value.retryable
    assert caught.value.message == "no connection to the backend: ConnectionRefusedError"


def test_a_connection_that_is_not_taken_in_time_is_retried():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):
            settings = {
                "base_url": f"http://127.0.0.1:{address[1]}",
                "connect_timeout_seconds": 0.3,
            }
            with pytest.raises(ExecutorUnavailable) as caught:
                run(settings=settings)
    assert caught.value.message == "no connection to the backend in time"


@pytest.mark.parametrize(
    ("code", "error", "retried"),
    [
        *[(code, UpstreamRejected, FINAL) for code in (300, 301, 307, 308)],
        *[(code, UpstreamRejected, FINAL) for code in (400, 401, 402, 403, 404, 409, 413, 422)],
        *[(code, ExecutorFailed, RETRIED) for code in (408, 425)],
        *[(code, ExecutorUnavailable, RETRIED) for code in (429, 500, 502, 503, 504)],
        *[(code, ExecutorUnavailable, FINAL) for code in (501, 505, 507, 599)],
    ],
)
def test_each_status_means_its_error(code, error, retried):
    caught = failure(status(code, message="so it is"))
    assert type(caught) is error
    assert caught.retryable is retried
    assert caught.message == f"the backend answered {code}: so it is"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("3", 3),
        ("1.5", 1.5),
        ("1000000000", 300),
        ("1e9", 300),
        ("-5", 0),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Tue, 99 Foo 2023 99:99:99 GMT", None),
        ("Tue, 24 Oct 2023 08:15:30 GMT", 0),
        ("Tue, 24 Oct 9999 08:15:30 GMT", 300),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_obeyed_and_bounded(code, value, seconds):
    assert failure(status(code, retry_after=value)).retry_after_seconds == seconds


def test_retry_after_may_be_a_date():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert failure(status(429, retry_after=date)).retry_after_seconds == pytest.approx(60, abs=5)


def test_an_output_beyond_the_limit_is_refused_counted_in_bytes():
    assert run("ééé", limit=6)[0].output == "ééé"
    with pytest.raises(ResultTooLarge):
        run("ééé", limit=5)


# --- what must not get out -------------------------------------------------------------------


def test_no_more_than_a_hundred_characters_of_what_the_upstream_said_are_shown():
    for message in ("x" * 500, "x\u0000" * 500, "x\n" * 500):
        shown = failure(status(400, message=message)).message
        assert len(shown) == len("the backend answered 400: ") + 100
        assert shown.isprintable()


def test_an_upstream_cannot_show_our_secrets():
    settings = {"api_key": SECRET, "headers": {"X-Token": "other-secret"}}
    message = f"{'x' * 80} {SECRET} and other-secret"
    shown = failure(status(401, message=message), settings=settings).message
    assert "secret" not in shown
    assert "***" in shown


def test_the_options_do_not_show_their_secrets():
    options = OpenAICompatibleOptions(
        base_url="http://a", api_key=SECRET, headers={"X-Token": "other-secret"}
    )
    assert "secret" not in f"{options} {options!r}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "ftp://models.example"},
        {"base_url": "models.example"},
        {"base_url": "http://"},
        {"base_url": "http://a:0"},
        {"base_url": "http://a:99999"},
        {"base_url": "http://user:secret@models.example"},
        {"base_url": "http://models.example/v1?key=secret"},
        {"base_url": "http://a", "api_key": "secret\nX-Other: 1"},
        {"base_url": "http://a", "headers": {"X-Team": "secret\r\n"}},
        {"base_url": "http://a", "endpoint": "images"},
        {"base_url": "http://a", "connect_timeout_seconds": 0},
        {"base_url": "http://a", "no_such_option": "secret"},
        {},
    ],
)
def test_wrong_options_are_refused_without_showing_them(wrong):
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(wrong, OpenAICompatibleOptions)
    assert "secret" not in str(caught.value)


def test_a_redirect_is_not_followed_and_no_cookie_is_kept():
    async def redirect(exchange):
        await exchange.whole(b"", status=307, location="/elsewhere", set_cookie="a=b")

    async def scene():
        async with opened({"this": redirect}) as (upstream, executor):
            for _ in range(2):
                with pytest.raises(UpstreamRejected):
                    await result_of(executor, attempt_of("x", options={"model": "this"}))
            assert [seen.path for seen in upstream.requests] == ["/v1/chat/completions"] * 2
            assert "cookie" not in upstream.requests[1].headers

    asyncio.run(scene())


def test_very_many_attempts_that_hang_do_not_hold_up_another():
    async def scene():
        async with opened() as (upstream, executor), asyncio.timeout(20):
            hanging = attempt_of("x", options={"model": "hang_between_pieces"})
            running = [asyncio.create_task(result_of(executor, hanging)) for _ in range(120)]
            await upstream.until_asked(120)
            assert (await result_of(executor, attempt_of("one two"))).output == "one two"
            for attempt in running:
                attempt.cancel()
            await upstream.until_let_go()

    asyncio.run(scene())


# --- letting go ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    ["hang_before_the_head", "hang_before_the_pieces", "hang_between_pieces", "pieces_for_ever"],
)
def test_cancelling_closes_the_connection_at_once(model):
    async def scene():
        async with opened() as (upstream, executor):
            request = attempt_of("x", options={"model": model}, max_result_bytes=10**12)
            running = asyncio.create_task(result_of(executor, request))
            await upstream.until_asked(1)
            running.cancel()
            await upstream.until_let_go(within_seconds=1)
            assert running.cancelled()

    asyncio.run(scene())


def test_closing_the_attempt_early_closes_the_connection_at_once():
    async def scene():
        async with opened() as (upstream, executor):
            pieces = executor.run(attempt_of("x", options={"model": "hang_between_pieces"}))
            assert (await anext(pieces)).delta == "one"
            await pieces.aclose()
            await upstream.until_let_go(within_seconds=1)

    asyncio.run(scene())


def test_a_finished_attempt_leaves_no_connection():
    async def scene():
        async with opened() as (upstream, executor):
            await result_of(executor, attempt_of("x"))
            await upstream.until_let_go(within_seconds=1)

    asyncio.run(scene())
