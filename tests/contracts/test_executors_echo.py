"""What `echo` does beyond the contract of all executors."""

import asyncio
import selectors

import pytest

from adapters.executors.echo import EchoExecutor, EchoOptions
from adapters.testing.executor_contract import attempt_of, result_of
from domain.errors import ExecutorFailed, InvalidInput
from domain.inference import Chunk


def echo(value, attempt=1, **options):
    executor = EchoExecutor(EchoOptions())
    request = attempt_of(value, options=options, attempt=attempt)
    return asyncio.run(result_of(executor, request)).output


def pieces(value, **options):
    async def collected():
        executor = EchoExecutor(EchoOptions())
        return [piece async for piece in executor.run(attempt_of(value, options=options))]

    return [piece.delta for piece in asyncio.run(collected()) if isinstance(piece, Chunk)]


class NoWait(selectors.DefaultSelector):
    """Instead of waiting for the next timer, counts the seconds that the wait would have taken."""

    passed = 0.0

    def select(self, timeout=None):
        if timeout is None:
            return super().select()
        self.passed += timeout
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer."""

    def __init__(self, no_wait):
        super().__init__(no_wait)
        self._no_wait = no_wait

    def time(self):
        return super().time() + self._no_wait.passed


def seconds_taken(settings_delay=0, value="x", **options):
    async def timed():
        executor = EchoExecutor(EchoOptions(delay_seconds=settings_delay))
        await result_of(executor, attempt_of(value, options=options))

    no_wait = NoWait()
    with asyncio.Runner(loop_factory=lambda: SkippingLoop(no_wait)) as runner:
        runner.run(timed())
        return round(no_wait.passed, 1)


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("", "Processed input: "),
        ("a\u0000b", "Processed input: a\u0000b"),
        ({"b": [1.0, None, "ü"], "a": True}, 'Processed input: {"b":[1.0,null,"ü"],"a":true}'),
        ([{"role": "user", "content": "hi"}], 'Processed input: [{"role":"user","content":"hi"}]'),
    ],
)
def test_text_is_echoed_as_it_is_and_json_as_compact_json(value, output):
    assert echo(value) == output


def test_the_output_comes_in_pieces_of_the_size_asked_for():
    assert pieces("ab🦙", chunk_characters=7) == ["Process", "ed inpu", "t: ab🦙"]
    assert pieces("ab", chunk_characters=1000) == ["Processed input: ab"]


def test_the_delay_of_the_task_goes_before_that_of_the_settings():
    assert seconds_taken(settings_delay=2) == pytest.approx(2, abs=0.2)
    assert seconds_taken(settings_delay=2, delay_seconds=600) == pytest.approx(600, abs=0.2)
    assert seconds_taken(settings_delay=2, delay_seconds=0) == 0


def test_the_delay_is_spread_over_the_pieces():
    async def instants():
        now = asyncio.get_running_loop().time
        started, executor = now(), EchoExecutor(EchoOptions())
        request = attempt_of("abc", options={"delay_seconds": 20, "chunk_characters": 5})
        return [now() - started async for _ in executor.run(request)]

    with asyncio.Runner(loop_factory=lambda: SkippingLoop(NoWait())) as runner:
        assert runner.run(instants()) == pytest.approx([5, 10, 15, 20, 20], abs=0.5)


def test_very_many_pieces_let_the_event_loop_do_other_things():
    async def turns_of_others():
        executor = EchoExecutor(EchoOptions())
        request = attempt_of("x" * 100_000, options={"chunk_characters": 1})
        running = asyncio.create_task(result_of(executor, request))
        turns = 0
        while not running.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(turns_of_others()) > 300


def test_the_first_attempts_fail_as_often_as_asked_and_may_be_retried():
    for attempt in (1, 2):
        with pytest.raises(ExecutorFailed) as caught:
            echo("x", attempt=attempt, fail_attempts=2)
        assert caught.value.retryable
    assert echo("x", attempt=3, fail_attempts=2) == "Processed input: x"


def test_a_permanent_failure_is_never_retried():
    with pytest.raises(ExecutorFailed) as caught:
        echo("x", fail_permanently=True, fail_attempts=9, delay_seconds=60)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "options",
    [
        {"delay_seconds": "2"},
        {"delay_seconds": -1},
        {"delay_seconds": True},
        {"delay_seconds": 1e300},
        {"chunk_characters": 0},
        {"chunk_characters": 1.5},
        {"fail_attempts": -1},
        {"fail_attempts": "all"},
        {"fail_permanently": 1},
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_by_name(options):
    with pytest.raises(InvalidInput) as caught:
        echo("x", **options)
    [name] = options
    assert name in caught.value.message


def test_null_counts_as_left_out_and_other_options_are_ignored():
    nothing = dict.fromkeys(["delay_seconds", "chunk_characters", "fail_attempts"])
    assert echo("x", **nothing, fail_permanently=None, temperature="hot", n=[1]) == (
        "Processed input: x"
    )


def test_closing_it_early_leaves_nothing_for_the_event_loop_to_clean_up():
    async def scene():
        pieces = EchoExecutor(EchoOptions()).run(attempt_of("x", options={"chunk_characters": 1}))
        await anext(pieces)
        await pieces.aclose()
        await asyncio.sleep(0)  # a turn, in which the loop would start to finalize a lost generator
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scene())
