"""Whatever a backend does, an attempt ends as it should: in every API, in time, in bounds."""

import asyncio
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from adapters.executors.http_json import HttpJsonExecutor, HttpJsonOptions
from adapters.executors.openai_compatible import OpenAICompatibleExecutor, OpenAICompatibleOptions
from adapters.testing.executor_contract import attempt_of, result_of
from adapters.testing.misbehaviour import MISBEHAVIOURS
from adapters.testing.upstream import FakeUpstream
from domain.errors import ExecutorError

SHORT: dict[str, Any] = {
    "first_byte_timeout_seconds": 2,
    "silence_timeout_seconds": 2,
    "total_timeout_seconds": 3,
    "max_response_bytes": 20_000_000,
}
OF_CHAT_ALONE = {
    *("usage_of_another_kind", "no_usage", "two_choices", "json_of_another_shape", "no_choices"),
    *("end_mark_without_a_line_end", "lines_ended_by_cr_lf"),
}
UNAVAILABLE = ("executor_unavailable", True)
FAILED = ("executor_error", True)
NONSENSE = ("executor_error", False)
REJECTED = ("upstream_rejected", False)
TOO_LARGE = ("result_too_large", False)

OUTCOMES: dict[str, Any] = {
    "close_before_the_head": UNAVAILABLE,
    "reset_before_the_head": UNAVAILABLE,
    "hang_before_the_head": UNAVAILABLE,
    "drip_the_head": UNAVAILABLE,
    "not_http": UNAVAILABLE,
    "an_error_that_hangs": UNAVAILABLE,
    "hang_before_the_pieces": FAILED,
    "hang_between_pieces": FAILED,
    "drip": FAILED,
    "reset_in_the_middle": FAILED,
    "no_end_mark": FAILED,
    "an_empty_stream": FAILED,
    "declare_more_than_is_sent": FAILED,
    "an_error_in_the_stream": FAILED,
    "a_refusal_in_the_stream": REJECTED,
    "a_redirect": REJECTED,
    "an_error_with_a_gzip_bomb": REJECTED,
    "html": NONSENSE,
    "nothing": NONSENSE,
    "other_json": NONSENSE,
    "only_the_end_mark": NONSENSE,
    "deep_json": NONSENSE,
    "not_a_number": NONSENSE,
    "a_lone_surrogate": NONSENSE,
    "invalid_utf8": NONSENSE,
    "a_gzip_bomb": NONSENSE,
    "pieces_for_ever": TOO_LARGE,
    "a_line_for_ever": TOO_LARGE,
    "a_body_for_ever": TOO_LARGE,
    "a_gigabyte": TOO_LARGE,
    "ignore_stream": "x",
}
OF_EITHER_KIND = {
    "a_broken_chunk",  # whether or not the head was seen before it
    "comments_for_ever",  # by size, or by time
}
NO_STREAM = {"an_empty_stream": NONSENSE}  # it cannot be told from an answer of nothing


def endpoint(name):
    def executor(base_url):
        return OpenAICompatibleExecutor(
            OpenAICompatibleOptions(base_url=base_url, endpoint=name, **SHORT)
        )

    return executor


def http_json(path, **options):
    def executor(base_url):
        url = f"{base_url}/{path}"
        return HttpJsonExecutor(
            HttpJsonOptions(url=url, error_pointer="/error", **options, **SHORT)
        )

    return executor


PIECES = {"piece_pointer": "/piece", "end_pointer": "/done"}
KINDS: dict[str, tuple[Callable[[str], Any], dict[str, Any]]] = {
    "chat_completions": (endpoint("chat_completions"), {}),
    "completions": (endpoint("completions"), {}),
    "responses": (endpoint("responses"), {"only_the_end_mark": ""}),
    "embeddings": (endpoint("embeddings"), NO_STREAM | {"ignore_stream": [1.0]}),
    "whole": (http_json("whole", output_pointer="/output"), NO_STREAM),
    "lines": (
        http_json("lines", stream="json_lines", **PIECES),
        {"ignore_stream": FAILED, "other_json": FAILED, "nothing": FAILED},
    ),
    "events": (
        http_json("events", stream="sse", **PIECES),
        dict.fromkeys(["ignore_stream", "a_body_for_ever", "declare_more_than_is_sent"], NONSENSE),
    ),
}


async def outcome_of(executor, behaviour):
    request = attempt_of("x", options={"model": behaviour}, max_result_bytes=100_000)
    try:
        return (await result_of(executor, request)).output
    except ExecutorError as error:
        return error.code, error.retryable


async def outcomes(open_executor, behaviours):
    """How an attempt at each of these ends; each has an executor, and so a breaker, of its own."""
    async with FakeUpstream(MISBEHAVIOURS) as upstream, asyncio.timeout(30):

        async def outcome(behaviour):
            async with open_executor(upstream.base_url) as executor:
                return await outcome_of(executor, behaviour)

        ends = await asyncio.gather(*(outcome(behaviour) for behaviour in behaviours))
        await upstream.until_let_go()
        return dict(zip(behaviours, ends, strict=True))


def test_every_misbehaviour_is_tried():
    assert OUTCOMES.keys() | OF_EITHER_KIND | OF_CHAT_ALONE == MISBEHAVIOURS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_each_misbehaviour_ends_in_bounded_time_with_its_outcome(kind):
    open_executor, other = KINDS[kind]
    assert asyncio.run(outcomes(open_executor, list(OUTCOMES))) == OUTCOMES | other


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_transfer_is_retried_and_comments_for_ever_end(kind):
    open_executor, _ = KINDS[kind]
    ends = asyncio.run(outcomes(open_executor, sorted(OF_EITHER_KIND)))
    assert ends["a_broken_chunk"] in (UNAVAILABLE, FAILED)
    assert ends["comments_for_ever"] in (TOO_LARGE, FAILED, NONSENSE)


@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_takes_more_memory_than_its_limits_allow(kind):
    open_executor, _ = KINDS[kind]
    large = ["a_gzip_bomb", "an_error_with_a_gzip_bomb", "a_gigabyte"]
    large += ["a_line_for_ever", "a_body_for_ever", "pieces_for_ever"]
    asyncio.run(outcomes(open_executor, large[:1]))  # the fake makes its bomb
    tracemalloc.start()
    try:
        for behaviour in large:
            asyncio.run(outcomes(open_executor, [behaviour]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
