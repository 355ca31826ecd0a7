"""Every executor keeps to the contract that the authors of executors are given."""

from contextlib import asynccontextmanager
from typing import Any

from adapters.executors.echo import EchoExecutor, EchoOptions
from adapters.executors.http_json import HttpJsonExecutor, HttpJsonOptions
from adapters.executors.openai_compatible import OpenAICompatibleExecutor, OpenAICompatibleOptions
from adapters.testing.executor_contract import ExecutorContract, attempt_of
from adapters.testing.misbehaviour import MISBEHAVIOURS
from adapters.testing.upstream import FakeUpstream


class TestEchoExecutor(ExecutorContract):
    factory = EchoExecutor

    @asynccontextmanager
    async def options(self):
        yield EchoOptions()

    def good(self):
        slowly = {"delay_seconds": 0.05, "chunk_characters": 3}
        return [
            (attempt_of("这是一个测试输入"), "Processed input: 这是一个测试输入"),
            (attempt_of("slow 🦙🦙", options=slowly), "Processed input: slow 🦙🦙"),
            (attempt_of({"a": [1, None]}), 'Processed input: {"a":[1,null]}'),
            (attempt_of(""), "Processed input: "),
        ]

    def endless(self):
        return attempt_of("on and on", options={"delay_seconds": 60})

    def bad(self):
        return [
            attempt_of("x", options={"fail_permanently": True}),
            attempt_of("x", options={"fail_attempts": 1}),
            attempt_of("x", options={"chunk_characters": "three"}),
        ]


BAD = ("html", "no_end_mark", "reset_in_the_middle", "a_redirect", "invalid_utf8")
MESSAGE = {"role": "user", "content": "three of them"}


class UpstreamContract(ExecutorContract):
    """The contract, with the fake upstream behind the executor."""

    def options_for(self, base_url):
        raise NotImplementedError

    @asynccontextmanager
    async def options(self):
        async with FakeUpstream(MISBEHAVIOURS) as upstream:
            yield self.options_for(upstream.base_url)
            await upstream.until_let_go()

    def endless(self):
        return attempt_of("x", options={"model": "hang_between_pieces"})

    def bad(self):
        return [attempt_of("x", options={"model": model}) for model in BAD]


class OpenAICompatibleContract(UpstreamContract):
    factory = OpenAICompatibleExecutor
    endpoint: Any = "chat_completions"

    def options_for(self, base_url):
        return OpenAICompatibleOptions(base_url=base_url, endpoint=self.endpoint)


class TestChatCompletions(OpenAICompatibleContract):
    def good(self):
        return [
            (attempt_of("one two"), "one two"),
            (attempt_of([MESSAGE, MESSAGE]), "three of them"),
            (attempt_of({"messages": [MESSAGE]}), "three of them"),
            (attempt_of("all at once", options={"model": "ignore_stream"}), "all at once"),
        ]

    def bad(self):
        return [
            *super().bad(),
            *[attempt_of(value) for value in ([], {"prompt": "x"}, ["not a message"])],
        ]


class TestCompletions(OpenAICompatibleContract):
    endpoint = "completions"

    def good(self):
        return [
            (attempt_of("one two"), "one two"),
            (attempt_of({"prompt": "three of them"}), "three of them"),
            (attempt_of("all at once", options={"model": "ignore_stream"}), "all at once"),
        ]

    def bad(self):
        return [*super().bad(), *[attempt_of(value) for value in ([MESSAGE], {"input": "x"})]]


class TestResponses(OpenAICompatibleContract):
    endpoint = "responses"

    def good(self):
        return [
            (attempt_of("one two"), "one two"),
            (attempt_of([MESSAGE, MESSAGE]), "three of them"),
            (attempt_of({"input": [MESSAGE]}), "three of them"),
            (attempt_of("all at once", options={"model": "ignore_stream"}), "all at once"),
        ]

    def bad(self):
        wrong: list[Any] = [[], {"messages": [MESSAGE]}]
        return [*super().bad(), *[attempt_of(value) for value in wrong]]


class TestEmbeddings(OpenAICompatibleContract):
    endpoint = "embeddings"

    def good(self):
        return [
            (attempt_of("one two three"), [3.0, 3.0, 5.0]),
            (attempt_of({"input": "one"}), [3.0]),
        ]

    def bad(self):
        wrong: list[Any] = [[MESSAGE], {"prompt": "x"}, {"input": 1}]
        return [*super().bad(), *[attempt_of(value) for value in wrong]]


class HttpJsonContract(UpstreamContract):
    factory = HttpJsonExecutor

    def good(self):
        return [(attempt_of("one two"), "one two"), (attempt_of([MESSAGE]), "three of them")]


class TestHttpJson(HttpJsonContract):
    def options_for(self, base_url):
        return HttpJsonOptions(url=f"{base_url}/whole", output_pointer="/output")


class TestHttpJsonLines(HttpJsonContract):
    def options_for(self, base_url):
        return HttpJsonOptions(
            url=f"{base_url}/lines",
            stream="json_lines",
            piece_pointer="/piece",
            end_pointer="/done",
        )


class TestHttpJsonEvents(HttpJsonContract):
    def options_for(self, base_url):
        return HttpJsonOptions(
            url=f"{base_url}/events", stream="sse", piece_pointer="/piece", end_pointer="/done"
        )
