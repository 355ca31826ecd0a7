"""The executors for backends, with a real llama.cpp server behind them."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.executors.http_json import HttpJsonExecutor, HttpJsonOptions
from adapters.executors.openai_compatible import OpenAICompatibleExecutor, OpenAICompatibleOptions
from adapters.testing.executor_contract import attempt_of, result_of
from domain.errors import ExecutorError
from domain.inference import Chunk

PROGRAM = Path(__file__).parents[1] / "llama_server.py"
MORE_THAN_SECONDS_OF_TOKENS = 16_000


class Server:
    """A llama.cpp server in a process of its own; its first line of output is its URL."""

    def __init__(self, directory):
        command = [sys.executable, str(PROGRAM), "--directory", str(directory)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()

    def kill(self):
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


def playing(scene, server, endpoint="chat_completions"):
    async def played():
        options = OpenAICompatibleOptions(base_url=f"{server.url}/v1", endpoint=endpoint)
        async with OpenAICompatibleExecutor(options) as executor:
            return await scene(executor)

    return asyncio.run(played())


@pytest.mark.parametrize(
    "value",
    [
        "tell me",
        [{"role": "user", "content": "tell me"}],
        {"messages": [{"role": "user", "content": "tell me"}], "max_tokens": 12},
    ],
)
def test_a_task_completes_with_its_text_and_its_usage(server, value):
    async def scene(executor):
        return await result_of(executor, attempt_of(value, options={"max_tokens": 12}))

    result = playing(scene, server)
    assert len(result.output) == 12
    assert set(result.output) <= set("abcdefghijklmnopqrstuvwxyz ")
    assert result.usage.output_tokens == 12
    assert result.usage.total_tokens == result.usage.input_tokens + 12


@pytest.mark.parametrize(
    ("endpoint", "limit", "reason"),
    [
        ("chat_completions", "max_tokens", "length"),
        ("completions", "max_tokens", "length"),
        ("responses", "max_output_tokens", "completed"),
    ],
)
def test_each_endpoint_that_writes_streams_its_text_and_tells_why_it_stopped(
    server, endpoint, limit, reason
):
    async def scene(executor):
        request = attempt_of("tell me", options={limit: 12})
        pieces = [piece async for piece in executor.run(request)]
        return pieces[:-1], pieces[-1]

    pieces, result = playing(scene, server, endpoint)
    assert len(pieces) > 1
    assert "".join(piece.delta for piece in pieces) == result.output
    assert len(result.output) == 12
    assert result.usage.output_tokens == 12
    assert result.details == {"finish_reason": reason}


def test_a_text_has_the_embedding_that_it_has_among_others(server):
    async def scene(executor):
        alone = await result_of(executor, attempt_of("tell me"))
        among = await result_of(executor, attempt_of({"input": ["other", "tell me"]}))
        await executor.check()
        return alone, among

    alone, among = playing(scene, server, "embeddings")
    assert len(alone.output) == 64
    assert among.output[1] == pytest.approx(alone.output, abs=0.001)
    assert alone.usage.output_tokens == 0
    assert alone.usage.total_tokens == alone.usage.input_tokens > 0


def test_the_api_of_its_own_is_any_json_backend(server):
    async def asked():
        options = HttpJsonOptions(
            url=f"{server.url}/completion",
            body={"stream": True},
            input_pointer="/prompt",
            options_pointer="",
            stream="sse",
            piece_pointer="/content",
            end_pointer="/stop",
            error_pointer="/error",
            health_path="/health",
        )
        async with HttpJsonExecutor(options) as executor:
            await executor.check()
            request = attempt_of("tell me", options={"n_predict": 12})
            return [piece async for piece in executor.run(request)]

    *pieces, result = asyncio.run(asked())
    assert len(pieces) == 12
    assert "".join(piece.delta for piece in pieces) == result.output


def test_a_server_that_is_killed_in_the_middle_fails_the_attempt_which_may_be_retried(server):
    async def scene(executor):
        options = {"max_tokens": MORE_THAN_SECONDS_OF_TOKENS}
        pieces = executor.run(attempt_of("tell me", options=options))
        assert isinstance(await anext(pieces), Chunk)
        server.kill()
        with pytest.raises(ExecutorError) as in_the_middle:
            [piece async for piece in pieces]
        with pytest.raises(ExecutorError) as afterwards:
            await result_of(executor, attempt_of("tell me"))
        return in_the_middle.value, afterwards.value

    in_the_middle, afterwards = playing(scene, server)
    assert (in_the_middle.code, in_the_middle.retryable) == ("executor_error", True)
    assert (afterwards.code, afterwards.retryable) == ("executor_unavailable", True)


def test_a_cancelled_attempt_stops_the_work_of_the_server(server):
    async def scene(executor):
        options = {"max_tokens": MORE_THAN_SECONDS_OF_TOKENS}
        pieces = executor.run(attempt_of("tell me", options=options))
        await anext(pieces)
        await pieces.aclose()
        async with asyncio.timeout(2):  # the server has one slot: it must be free again
            await result_of(executor, attempt_of("tell me", options={"max_tokens": 1}))

    playing(scene, server)


def test_what_the_server_refuses_is_final(server):
    async def scene(executor):
        request = attempt_of([{"role": "user", "content": 1}], options={"max_tokens": 1})
        with pytest.raises(ExecutorError) as caught:
            await result_of(executor, request)
        return caught.value

    refused = playing(scene, server)
    assert (refused.code, refused.retryable) == ("upstream_rejected", False)
