"""Both executors keep to the contract that their authors are given."""

from contextlib import asynccontextmanager

from adapters.executors.echo import EchoExecutor, EchoOptions
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


class TestOpenAICompatibleExecutor(ExecutorContract):
    factory = OpenAICompatibleExecutor

    @asynccontextmanager
    async def options(self):
        async with FakeUpstream(MISBEHAVIOURS) as upstream:
            yield OpenAICompatibleOptions(base_url=upstream.base_url)
            await upstream.until_let_go()

    def good(self):
        message = {"role": "user", "content": "three of them"}
        return [
            (attempt_of("one two"), "one two"),
            (attempt_of([message, message]), "three of them"),
            (attempt_of({"messages": [message]}), "three of them"),
            (attempt_of("all at once", options={"model": "ignore_stream"}), "all at once"),
        ]

    def endless(self):
        return attempt_of("x", options={"model": "hang_between_pieces"})

    def bad(self):
        models = ("html", "no_end_mark", "reset_in_the_middle", "a_redirect", "invalid_utf8")
        return [attempt_of("x", options={"model": model}) for model in models] + [
            attempt_of([]),
            attempt_of({"prompt": "x"}),
            attempt_of(["not a message"]),
        ]
