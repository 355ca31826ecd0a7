"""Several backends share the work; those that are down are left alone, probed, and taken back."""

import asyncio
import socket
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from adapters.executors.openai_compatible import OpenAICompatibleExecutor, OpenAICompatibleOptions
from adapters.testing.executor_contract import attempt_of, result_of
from adapters.testing.misbehaviour import MISBEHAVIOURS, status
from adapters.testing.upstream import FakeUpstream
from adapters.upstream import backends
from domain.errors import ExecutorError, ExecutorUnavailable, ExecutorUnreachable

PROBES = "/v1/models"
BEHAVIOURS = MISBEHAVIOURS | {"500": status(500), "429": status(429), "400": status(400)}


@pytest.fixture(autouse=True)
def seconds_between_probes(monkeypatch):
    """Less than five, so that tests need not wait."""
    monkeypatch.setattr(backends, "PROBE_EVERY_SECONDS", 0.05)


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return closed.getsockname()[1]


def url_of(port):
    return f"http://127.0.0.1:{port}/v1"


@asynccontextmanager
async def opened(*base_urls, **options):
    settings = OpenAICompatibleOptions(base_url=list(base_urls), **options)
    async with OpenAICompatibleExecutor(settings) as executor:
        yield executor


@asynccontextmanager
async def two_upstreams():
    """Two fakes, and an executor before them."""
    async with (
        FakeUpstream(BEHAVIOURS) as first,
        FakeUpstream(BEHAVIOURS) as second,
        opened(first.base_url, second.base_url) as executor,
    ):
        yield first, second, executor


def asking(model):
    return attempt_of("hello", options={"model": model})


async def failed(executor, *models):
    """The errors of attempts at these models, one by one."""
    errors = []
    for model in models:
        with pytest.raises(ExecutorError) as caught:
            await result_of(executor, asking(model))
        errors.append(caught.value)
    return errors


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_one_by_one_attempts_go_to_the_first_of_the_settings():
    async with two_upstreams() as (first, second, executor):
        for _ in range(3):
            await result_of(executor, attempt_of("hello"))
        assert (len(first.requests), len(second.requests)) == (3, 0)


async def test_side_by_side_they_go_to_the_least_busy():
    async with two_upstreams() as (first, second, executor), AsyncExitStack() as running:
        for _ in range(10):
            pieces = executor.run(asking("hang_between_pieces"))
            running.push_async_callback(pieces.aclose)
            await anext(pieces)
        assert (len(first.requests), len(second.requests)) == (5, 5)


async def test_an_attempt_that_finds_no_connection_goes_to_the_next_and_does_not_fail():
    async with (
        FakeUpstream() as second,
        opened(url_of(closed_port()), second.base_url) as executor,
    ):
        for _ in range(30):
            assert (await result_of(executor, attempt_of("hello"))).output == "hello"
        assert executor.room() is None


async def test_an_attempt_whose_request_was_sent_is_not_sent_again():
    async with two_upstreams() as (first, second, executor):
        await failed(executor, "close_before_the_head", "reset_in_the_middle", "500")
        assert (len(first.requests), len(second.requests)) == (3, 0)


async def test_a_backend_that_fails_is_left_alone_while_another_serves():
    async with two_upstreams() as (first, second, executor):
        await failed(executor, *["500"] * 10)
        assert executor.room() is None
        await result_of(executor, attempt_of("hello"))
        assert (len(first.requests), len(second.requests)) == (10, 1)


@pytest.mark.parametrize("model", ["500", "close_before_the_head", "no_end_mark", "html", "429"])
async def test_what_opens_a_breaker_is_failure_that_a_retry_could_mend_but_no_busy_backend(model):
    behaviours = BEHAVIOURS | {PROBES: status(500)}
    async with FakeUpstream(behaviours) as upstream, opened(upstream.base_url) as executor:
        await failed(executor, *[model] * 12)
        opens = model not in {"html", "429"}
        assert executor.room() == (0 if opens else None)
        assert len(upstream.requests) == (10 if opens else 12)


async def test_with_every_backend_down_there_is_no_room_and_an_attempt_is_not_begun():
    behaviours = BEHAVIOURS | {PROBES: status(503)}
    async with FakeUpstream(behaviours) as upstream, opened(upstream.base_url) as executor:
        await failed(executor, *["500"] * 10)
        [error] = await failed(executor, "any")
        assert type(error) is ExecutorUnreachable
        assert len(upstream.requests) == 10


async def test_a_probe_that_is_answered_lets_one_attempt_in_and_then_ever_more():
    async with FakeUpstream(BEHAVIOURS) as upstream, opened(upstream.base_url) as executor:
        await failed(executor, *["500"] * 10)
        await until(lambda: executor.room() == 1)
        assert {probe.path for probe in upstream.probes} == {PROBES}
        rooms = []
        for _ in range(6):
            await result_of(executor, attempt_of("hello"))
            rooms.append(executor.room())
        assert rooms == [2, 4, 8, 16, 32, None]


async def test_a_probe_that_hangs_or_is_answered_by_5xx_opens_nothing():
    behaviours = BEHAVIOURS | {PROBES: status(503)}
    async with FakeUpstream(behaviours) as upstream, opened(upstream.base_url) as executor:
        await failed(executor, *["500"] * 10)
        await until(lambda: len(upstream.probes) >= 3)
        assert executor.room() == 0


async def test_any_other_answer_to_a_probe_is_a_sign_of_life():
    behaviours = BEHAVIOURS | {PROBES: status(404)}
    async with FakeUpstream(behaviours) as upstream, opened(upstream.base_url) as executor:
        await failed(executor, *["500"] * 10)
        await until(lambda: executor.room() == 1)


async def test_nobody_probes_while_nothing_is_down_nor_after_the_end():
    async with FakeUpstream(BEHAVIOURS) as upstream:
        async with opened(upstream.base_url) as executor:
            before = asyncio.all_tasks()
            await failed(executor, *["500"] * 9, "400")
            await upstream.until_let_go()
            assert asyncio.all_tasks() == before
            await failed(executor, "500")
            await upstream.until_let_go()
            [probing] = asyncio.all_tasks() - before
        assert probing.cancelled()


async def test_attempts_side_by_side_find_out_that_a_backend_is_down_before_one_of_them_failed():
    async with opened(url_of(closed_port())) as executor:
        attempts = [result_of(executor, attempt_of("hello")) for _ in range(8)]
        errors = await asyncio.gather(*attempts, return_exceptions=True)
        assert {type(error) for error in errors} == {ExecutorUnreachable}
        assert executor.room() == 0


async def test_a_lone_task_uses_up_its_attempts_before_a_backend_counts_as_down():
    async with opened(url_of(closed_port())) as executor:
        await failed(executor, *["any"] * 3)
        assert executor.room() is None


async def test_a_check_asks_really_and_one_backend_that_is_well_is_enough():
    async with FakeUpstream() as upstream:
        async with opened(url_of(closed_port()), upstream.base_url) as executor:
            await executor.check()
        assert [probe.path for probe in upstream.probes] == [PROBES]


@pytest.mark.parametrize("code", [401, 403, 500, 503])
async def test_a_check_says_what_the_backend_said(code):
    async with (
        FakeUpstream({PROBES: status(code)}) as upstream,
        opened(upstream.base_url) as executor,
    ):
        with pytest.raises(ExecutorUnavailable, match=f"answered {code} to a probe"):
            await executor.check()


async def test_a_check_names_each_backend_that_is_gone():
    ports = [closed_port(), closed_port()]
    async with opened(*[url_of(port) for port in ports]) as executor:
        with pytest.raises(ExecutorUnavailable) as caught:
            await executor.check()
    assert caught.value.message == "; ".join(
        f"127.0.0.1:{port}: no answer: ConnectionRefusedError" for port in ports
    )
