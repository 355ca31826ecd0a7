"""What every executor keeps to, as tests: subclass `ExecutorContract` in a test module of yours.

    class TestShout(ExecutorContract):
        factory = ShoutExecutor

        @asynccontextmanager
        async def options(self):
            yield ShoutOptions(volume=11)

        def good(self):
            return [(attempt_of("hello"), "HELLO"), (attempt_of("bye"), "BYE")]

        def endless(self):
            return attempt_of("hello", options={"delay_seconds": 60})

        def bad(self):
            return [attempt_of({"not": "text"})]

pytest needs nothing else. Each test opens an executor of its own, on an event loop of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Final

import pytest
from msgspec.structs import replace

from domain.errors import ExecutorError, ResultTooLarge
from domain.inference import Chunk, InferenceRequest, InferenceResult, encode_result
from domain.ports import Executor, ExecutorFactory

_PROMPTLY_SECONDS: Final = 1.0
_MAX_RESULT_BYTES: Final = 1024 * 1024


def attempt_of(
    value: Any,
    *,
    options: Mapping[str, Any] | None = None,
    attempt: int = 1,
    max_result_bytes: int = _MAX_RESULT_BYTES,
) -> InferenceRequest:
    """A request for one attempt, as a worker would make it; `options` may have a `model`."""
    options = options or {}
    return InferenceRequest(
        task_id="01890a5d-ac96-774b-bcce-b302099a8057",
        attempt=attempt,
        model=options.get("model"),
        input=value,
        options=options,
        max_result_bytes=max_result_bytes,
    )


async def result_of(executor: Executor, request: InferenceRequest) -> InferenceResult:
    """Run an attempt to its end, check the order of what it yields, and give its result."""
    yielded = [piece async for piece in executor.run(request)]
    *pieces, last = yielded
    assert isinstance(last, InferenceResult)
    texts = [piece.delta for piece in pieces if isinstance(piece, Chunk)]
    assert not any(isinstance(piece, InferenceResult) for piece in pieces), "a result too many"
    if texts:
        assert "".join(texts) == last.output
    return last


Scene = Callable[[Executor], Coroutine[Any, Any, None]]


class ExecutorContract:
    """The tests. Overwrite `factory`, `options`, `good`, `endless` and, if there are any, `bad`."""

    factory: ExecutorFactory

    def options(self) -> AbstractAsyncContextManager[Any]:
        """The executor's options, within `async with`; a backend that it needs runs meanwhile.

        On leaving, it may check that the executor has let go of that backend.
        """
        raise NotImplementedError

    def good(self) -> Sequence[tuple[InferenceRequest, Any]]:
        """Two or more attempts that succeed, each with its output; longer than two bytes."""
        raise NotImplementedError

    def endless(self) -> InferenceRequest:
        """An attempt that takes a minute or longer when it is left alone."""
        raise NotImplementedError

    def bad(self) -> Sequence[InferenceRequest]:
        """Attempts that fail."""
        return []

    def test_its_options_are_a_frozen_struct_that_refuses_unknown_fields(self) -> None:
        config = self.factory.options_type.__struct_config__
        assert config.frozen
        assert config.forbid_unknown_fields

    def test_an_attempt_ends_with_exactly_one_result_which_is_its_pieces_joined(self) -> None:
        async def scene(executor: Executor) -> None:
            for request, output in self.good():
                assert (await result_of(executor, request)).output == output

        self._run(scene)

    def test_a_result_can_be_stored(self) -> None:
        async def scene(executor: Executor) -> None:
            for request, _ in self.good():
                result = await result_of(executor, request)
                assert encode_result(result, request.max_result_bytes)

        self._run(scene)

    def test_attempts_that_run_at_the_same_time_do_not_mix(self) -> None:
        async def scene(executor: Executor) -> None:
            good = list(self.good()) * 10
            results = await asyncio.gather(*(result_of(executor, request) for request, _ in good))
            assert [result.output for result in results] == [output for _, output in good]

        self._run(scene)

    def test_a_cancelled_attempt_ends_promptly_and_is_forgotten(self) -> None:
        async def scene(executor: Executor) -> None:
            running = asyncio.create_task(result_of(executor, self.endless()))
            await self._others_go_on(executor)
            running.cancel()
            async with asyncio.timeout(_PROMPTLY_SECONDS):
                with pytest.raises(asyncio.CancelledError):
                    await running
            await self._others_go_on(executor)

        self._run(scene)

    def test_an_attempt_that_is_closed_early_ends_promptly_and_is_forgotten(self) -> None:
        async def scene(executor: Executor) -> None:
            for request, _ in self.good():
                async with aclosing(executor.run(request)) as pieces, asyncio.timeout(10):
                    await anext(pieces)
            await self._others_go_on(executor)

        self._run(scene)

    def test_an_attempt_that_was_never_started_can_be_closed(self) -> None:
        async def scene(executor: Executor) -> None:
            await executor.run(self.endless()).aclose()

        self._run(scene)

    def test_what_goes_wrong_is_an_executor_error_and_spoils_nothing(self) -> None:
        async def scene(executor: Executor) -> None:
            for request in self.bad():
                with pytest.raises(ExecutorError) as caught:
                    await result_of(executor, request)
                assert caught.value.message
            await self._others_go_on(executor)

        self._run(scene)

    def test_an_output_beyond_the_limit_is_refused(self) -> None:
        async def scene(executor: Executor) -> None:
            for request, _ in self.good():
                with pytest.raises(ResultTooLarge):
                    await result_of(executor, replace(request, max_result_bytes=2))

        self._run(scene)

    def test_a_later_attempt_gives_what_the_first_would_have_given(self) -> None:
        async def scene(executor: Executor) -> None:
            for request, output in self.good():
                for attempt in (1, 2, 7):
                    result = await result_of(executor, replace(request, attempt=attempt))
                    assert result.output == output

        self._run(scene)

    def test_a_closed_executor_can_be_opened_anew(self) -> None:
        async def twice() -> None:
            async with self.options() as options:
                for _ in range(2):
                    async with self.factory(options) as executor:
                        await self._others_go_on(executor)

        asyncio.run(twice())

    async def _others_go_on(self, executor: Executor) -> None:
        request, output = self.good()[0]
        assert (await result_of(executor, request)).output == output

    def _run(self, scene: Scene) -> None:
        asyncio.run(self._play(scene))

    async def _play(self, scene: Scene) -> None:
        async with (
            self.options() as options,
            self.factory(options) as executor,
            _nothing_left_running(),
        ):
            await scene(executor)


@asynccontextmanager
async def _nothing_left_running() -> AsyncIterator[None]:
    """Fail unless each asyncio task that began within is over soon."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before
    if left:
        _, left = await asyncio.wait(left, timeout=_PROMPTLY_SECONDS)
    assert not left, "an attempt left tasks running"
