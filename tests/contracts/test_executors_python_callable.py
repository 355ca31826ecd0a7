"""What `python_callable` does with a function, whatever the function does."""

import asyncio
import json
import os
import signal
import time
import traceback
import tracemalloc
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from adapters.executors.python_callable.context import Context
from adapters.executors.python_callable.executor import (
    PythonCallableExecutor,
    PythonCallableOptions,
)
from adapters.testing.executor_contract import ExecutorContract, attempt_of, result_of
from domain.errors import (
    ExecutorCrashed,
    ExecutorError,
    ExecutorFailed,
    ExecutorUnavailable,
    ExecutorUnusable,
    InvalidInput,
    ResultNotStorable,
    ResultTooLarge,
    UpstreamRejected,
)
from domain.inference import Chunk, InferenceResult, LogLine, Progress, Usage

FOLDER = Path(__file__).parents[1] / "functions"
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


class FunctionContract(ExecutorContract):
    factory = PythonCallableExecutor
    target: str

    @asynccontextmanager
    async def options(self):
        yield PythonCallableOptions(target=f"our_functions:{self.target}", processes=2)

    def good(self):
        return [(attempt_of("hello 🦙"), "HELLO 🦙"), (attempt_of("bye"), "BYE")]

    def endless(self):
        return attempt_of("on and on")


class TestFunction(FunctionContract):
    target = "shout"

    def bad(self):
        return [attempt_of("broken"), attempt_of({"not": "text"})]


class TestGenerator(FunctionContract):
    target = "spell"

    def bad(self):
        return [attempt_of("broken?"), attempt_of([1])]


class TestCoroutineFunction(FunctionContract):
    target = "shout_later"

    def bad(self):
        return [attempt_of("broken"), attempt_of({"not": "text"})]


class TestAsyncGenerator(FunctionContract):
    target = "spell_later"

    def bad(self):
        return [attempt_of("broken?"), attempt_of([1])]


@asynccontextmanager
async def opened(target, **options):
    settings = PythonCallableOptions(target=f"our_functions:{target}", **options)
    async with PythonCallableExecutor(settings) as executor, asyncio.timeout(60):
        yield executor


async def output_of(executor, value, **request):
    return (await result_of(executor, attempt_of(value, **request))).output


async def failure_of(executor, value, **request):
    with pytest.raises(ExecutorError) as caught:
        await result_of(executor, attempt_of(value, **request))
    return caught.value


async def until(probe, what, within=20.0):
    """Wait until `probe` gives something true, and give that."""
    deadline = time.monotonic() + within
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"not within {within:g} seconds: {what}"
        await asyncio.sleep(0.02)
    return answer


def is_alive(pid):
    """Whether this process runs: not gone, and no corpse that nobody has collected."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


# --- what it is called with, and what it gives ------------------------------------------------


async def test_a_coroutine_function_runs_in_this_process_and_any_other_one_elsewhere():
    async with opened("where_later") as executor:
        assert await output_of(executor, "x") == os.getpid()
    async with opened("later_shouter") as executor:
        assert await output_of(executor, "hi") == f"HI in {os.getpid()}"
    async with opened("where") as executor:
        assert await output_of(executor, "x") != os.getpid()


async def test_an_object_that_can_be_called_is_a_function():
    async with opened("shouter") as executor:
        assert await output_of(executor, "hi", options={"mark": "!"}) == "HI!"


@pytest.mark.parametrize(
    ("target", "load"), [("tell_all", "load"), ("tell_all_later", "load_later")]
)
async def test_a_third_argument_tells_of_the_attempt_and_takes_progress_and_log(target, load):
    async with opened(target, load=f"our_functions:{load}") as executor:
        request = attempt_of("x", options={"model": "m"}, attempt=3)
        *said, result = [piece async for piece in executor.run(request)]
    assert said == [Progress(0.25), LogLine("a quarter")]
    assert result.output[:3] == [request.task_id, 3, "m"]
    assert result.output[3] == ("loaded 1 times" if load == "load" else "loaded later")


async def test_a_thread_of_a_coroutine_function_may_speak():
    async with (
        opened("tell_from_a_thread") as executor,
        aclosing(executor.run(attempt_of("x"))) as pieces,
    ):
        started = time.monotonic()
        assert await anext(pieces) == LogLine("from a thread")
        assert time.monotonic() - started < 20, "nothing but a timer woke the event loop"


async def test_load_runs_once_in_a_process_and_again_in_the_next_one():
    async with opened("tell_all_or_die", load="our_functions:load") as executor:
        for _ in range(2):
            assert (await output_of(executor, "x"))[3] == "loaded 1 times"
        assert isinstance(await failure_of(executor, "die"), ExecutorCrashed)
        assert (await output_of(executor, "x"))[3] == "loaded 1 times"


def test_progress_is_a_fraction_and_a_log_line_is_cut():
    said: list[Progress | LogLine] = []
    context = Context(task_id="t", attempt=1, model=None, loaded=None, say=said.append)
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="0 to 1"):
            context.progress(fraction)
    context.progress(1)
    context.log("\ud800" + "x" * 5_000)
    context.close()
    context.log("too late")
    assert said == [Progress(1.0), LogLine("?" + "x" * 1_999)]


async def test_any_json_value_is_an_output_and_nothing_else_is():
    async with opened("give_back") as executor:
        values: list[Any] = [{"a": [1, 2.5, None, True, "ü\u0000"]}, [], "text", {}]
        for value in values:
            assert await output_of(executor, value) == value
        for value in ("nan", "surrogate", "object", "huge"):
            failure = await failure_of(executor, value)
            assert isinstance(failure, ResultNotStorable), value
        deep = json.loads("[" * 500 + "]" * 500)
        assert await output_of(executor, deep) == deep


async def test_a_whole_result_passes_with_its_usage_and_details():
    async with opened("with_usage") as executor:
        result = await result_of(executor, attempt_of("x"))
    assert result == InferenceResult("x", Usage(1, 2, 3), {"model": "mine"})


async def test_what_a_generator_returns_goes_before_its_pieces():
    async with opened("yield_and_return") as executor:
        *pieces, result = [piece async for piece in executor.run(attempt_of("x"))]
    assert pieces == [Chunk("pieces")]
    assert result.output == {"in the end": "x"}


@pytest.mark.parametrize("target", ["yield_something_else", "yield_something_else_later"])
async def test_a_generator_that_yields_no_text_fails_for_good(target):
    async with opened(target) as executor:
        failure = await failure_of(executor, "x")
    assert (failure.message, failure.retryable) == ("a generator yields text, not a int", False)


@pytest.mark.parametrize("target", ["raise_by_name", "raise_by_name_later"])
async def test_what_is_raised_is_retried_unless_it_says_otherwise(target):
    async with opened(target) as executor:
        for name in ("ValueError", "SystemExit", "KeyboardInterrupt", "its text", "surrogate"):
            failure = await failure_of(executor, name)
            assert type(failure) is ExecutorFailed, name
            assert failure.retryable
            assert failure.message.encode()
            assert len(failure.message) <= 500
        assert (await failure_of(executor, "SystemExit")).message == "SystemExit: 3"
        invalid = await failure_of(executor, "InvalidInput")
        assert type(invalid) is InvalidInput
        assert (invalid.message, invalid.retryable) == ("no text in it", False)
        rejected = await failure_of(executor, "UpstreamRejected")
        assert (type(rejected), rejected.retryable) == (UpstreamRejected, True)
        busy = await failure_of(executor, "ExecutorUnavailable")
        assert (type(busy), busy.retry_after_seconds) == (ExecutorUnavailable, 7)
        crashed = await failure_of(executor, "ExecutorCrashed")
        assert type(crashed) is ExecutorFailed


@pytest.mark.parametrize("target", ["raise_by_name", "raise_by_name_later"])
async def test_the_trace_of_what_was_raised_is_in_the_log_for_who_asks_for_it(target):
    async with opened(target) as executor:
        with capture_logs() as logs:
            await failure_of(executor, "InvalidInput")
            assert logs == [], "this one was raised on purpose"
            await failure_of(executor, "SystemExit")
    [event] = logs
    assert event["log_level"] == "debug"
    trace = event.get("lines") or traceback.format_exception(event["exc_info"])
    assert "in raise_by_name" in "".join(trace)


async def test_a_coroutine_function_that_cancels_itself_has_failed():
    async with opened("raise_by_name_later") as executor:
        failure = await failure_of(executor, "CancelledError")
    assert failure.message == "CancelledError"


async def test_output_without_end_is_stopped_at_the_limit_and_the_process_goes_on():
    async with opened("pieces_for_ever") as executor:
        for _ in range(2):
            failure = await failure_of(executor, "x", max_result_bytes=100_000)
            assert isinstance(failure, ResultTooLarge)
            assert executor.room() == 1


# --- opening ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "option", "reason"),
    [
        ({"target": "nowhere:f"}, "target", "ModuleNotFoundError: No module named 'nowhere'"),
        ({"target": "our_functions:nothing"}, "target", "AttributeError"),
        ({"target": "our_functions"}, "target", "not of the form package.module:function"),
        ({"target": "our_functions:"}, "target", "not of the form package.module:function"),
        ({"target": "our_functions:loads"}, "target", "is a list"),
        ({"target": "our_functions:too_few"}, "target", "allowed: (input, options)"),
        ({"target": "exits_at_import:f"}, "target", "SystemExit: no"),
        ({"target": "dies_at_import:f"}, "target", "exit code 5"),
        ({"target": "sleeps_at_import:f", "start_timeout_seconds": 1}, "target", "within 1 sec"),
        ({"target": "our_functions:where", "load": "our_functions:no"}, "load", "AttributeError"),
        ({"target": "our_functions:where", "load": "our_functions:load_later"}, "load", "async"),
        ({"target": "our_functions:where_later", "load": "nowhere:f"}, "load", "nowhere"),
        (
            {"target": "our_functions:where_later", "load": "our_functions:load_never"},
            "load",
            "GPU",
        ),
    ],
)
async def test_a_function_that_cannot_be_used_is_named_at_the_start(
    options, option, reason, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "exits_at_import.py").write_text("import sys; sys.exit('no')")
    (tmp_path / "dies_at_import.py").write_text("import os; os._exit(5)")
    (tmp_path / "sleeps_at_import.py").write_text("import time; time.sleep(60)")
    with pytest.raises(ExecutorUnusable) as caught:
        async with PythonCallableExecutor(PythonCallableOptions(**options)):
            pass
    assert caught.value.option == option
    assert str(caught.value).startswith(repr(options[option]))
    assert reason in str(caught.value)


@pytest.mark.parametrize("load", ["load_never", "load_and_die"])
async def test_what_does_not_load_takes_no_attempts_and_says_why(load):
    async with opened("where", load=f"our_functions:{load}") as executor:
        with capture_logs() as logs:
            await until(lambda: len(logs) >= 2, "two starts have failed")
        assert executor.room() == 0
        with pytest.raises(ExecutorUnavailable, match=r"no GPU|exit code 7"):
            await executor.check()
    assert {event["event"] for event in logs} == {"callable_does_not_start"}
    first, second = [event["next_try_in_seconds"] for event in logs[:2]]
    assert second == 2 * first


async def test_what_loads_at_last_takes_attempts(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLOWED", str(tmp_path / "allowed"))
    async with opened("where", load="our_functions:load_once_allowed") as executor:
        with capture_logs() as logs:
            await until(lambda: logs, "a start has failed")
        (tmp_path / "allowed").touch()
        await until(lambda: executor.room() == 1, "a start went well")
        await executor.check()
        assert await output_of(executor, "x")


# --- the life of a child ---------------------------------------------------------------------


@pytest.mark.parametrize(("harm", "how"), [("exit", "exit code 3"), ("segfault", "SIGSEGV")])
async def test_a_death_is_charged_to_its_own_attempt_and_the_process_is_replaced(harm, how):
    async with opened("misbehave", processes=2) as executor:
        await until(lambda: executor.room() == 2, "both processes have started")
        other = asyncio.create_task(output_of(executor, "sleep"))
        failure = await failure_of(executor, harm)
        assert isinstance(failure, ExecutorCrashed)
        assert how in failure.message
        assert await other == "good: sleep"
        await until(lambda: executor.room() == 2, "the process is replaced")
        assert await output_of(executor, "x") == "good: x"


async def test_an_endless_loop_is_killed_on_cancel():
    async with opened("loop_or_tell_where") as executor:
        pid = await output_of(executor, "where")
        running = asyncio.create_task(output_of(executor, "loop"))
        await until(lambda: executor.room() == 0, "it runs")
        running.cancel()
        async with asyncio.timeout(1):
            await asyncio.wait([running])
        assert running.cancelled()
        assert not is_alive(pid)
        assert await output_of(executor, "where") != pid


async def test_a_function_that_heeds_the_flag_keeps_its_process(tmp_path):
    async with opened("listen_to_the_flag") as executor:
        for number in range(2):
            pieces = executor.run(attempt_of(str(tmp_path / f"heard{number}")))
            assert await anext(pieces) == LogLine("begun")
            await pieces.aclose()
            assert executor.room() == 1
    assert (tmp_path / "heard0").read_text() == (tmp_path / "heard1").read_text()


async def test_a_generator_is_ended_at_its_next_piece_and_keeps_its_process():
    async with opened("pieces_of_a_mebibyte") as executor:
        for _ in range(5):
            pieces = executor.run(attempt_of("x", max_result_bytes=10**12))
            assert await anext(pieces) == Chunk("x" * MIB)
            await pieces.aclose()
            assert executor.room() == 1


async def test_a_generator_that_is_cancelled_in_the_middle_of_a_piece_keeps_its_process():
    async with opened("pieces_of_a_mebibyte") as executor:
        for _ in range(5):
            await read_and_cancel(executor, attempt_of("x", max_result_bytes=10**12))
            assert executor.room() == 1


async def read_and_cancel(executor, request):
    read = 0

    async def read_on_and_on():
        nonlocal read
        async for _ in executor.run(request):
            read += 1

    reading = asyncio.create_task(read_on_and_on())
    await until(lambda: read > 3, "it is in the middle")
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()


@pytest.mark.parametrize("how", ["die", "be killed"])
async def test_what_a_function_has_started_ends_with_its_process(how):
    async with opened("start_another") as executor:
        pieces = executor.run(attempt_of(how))
        line = await anext(pieces)
        processes = [int(pid) for pid in line.message.split()]
        if how == "die":
            with pytest.raises(ExecutorCrashed):
                await anext(pieces)
        await pieces.aclose()
        await until(lambda: not any(map(is_alive, processes)), "all of them are gone")


async def test_a_death_between_attempts_is_charged_to_nobody():
    async with opened("where") as executor:
        first = await output_of(executor, "x")
        os.kill(first, signal.SIGKILL)
        assert executor.room() == 1, "nobody can know yet"
        second = await output_of(executor, "x")
        assert second != first
        os.kill(second, signal.SIGKILL)
        await until(lambda: executor.room() == 0, "its death is seen")
        assert await output_of(executor, "x") != second


async def test_a_process_outlives_the_signals_that_stop_a_service():
    async with opened("where") as executor:
        pid = await output_of(executor, "x")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(pid, number)
            assert await output_of(executor, "x") == pid


async def test_a_function_that_forks_gives_one_result():
    async with opened("fork") as executor:
        pid = await output_of(executor, "x")
        assert [await output_of(executor, "x") for _ in range(3)] == [pid] * 3


async def test_a_function_that_closes_everything_costs_its_process():
    async with opened("close_all") as executor:
        for _ in range(2):
            assert isinstance(await failure_of(executor, "x"), ExecutorCrashed)


async def test_memory_beyond_the_limit_is_refused_and_the_process_goes_on():
    async with opened("misbehave", max_memory_bytes=512 * MIB) as executor:
        failure = await failure_of(executor, "memory")
        assert (type(failure), failure.message) == (ExecutorFailed, "MemoryError")
        assert await output_of(executor, "x") == "good: x"


async def test_a_child_is_the_first_to_go_where_memory_runs_out():
    async with opened("score_of_memory_killer") as executor:
        assert await output_of(executor, "x") == "1000"


async def test_prints_are_one_short_event_of_the_log_and_cost_no_memory():
    async with opened("misbehave") as executor:
        assert await output_of(executor, "warm up")
        tracemalloc.start()
        try:
            with capture_logs() as logs:
                assert await output_of(executor, "prints", attempt=2) == "good: prints"
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 * MIB
    [event] = logs
    assert (event["event"], event["log_level"]) == ("callable_printed", "debug")
    assert (event["attempt"], len(event["lines"])) == (2, 1)
    assert len(event["lines"][0]) + event["dropped_bytes"] == 200 * (MIB + 1)


async def test_a_child_that_says_too_much_waits_for_its_reader():
    async with (
        opened("speak_for_ever") as executor,
        aclosing(executor.run(attempt_of("x"))) as pieces,
    ):
        await anext(pieces)
        tracemalloc.start()
        try:
            for _ in range(5_000):
                assert await anext(pieces) == LogLine("x" * 2_000)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < MIB


async def test_a_child_that_says_too_much_leaves_turns_to_others():
    heard = 0

    async def listen():
        nonlocal heard
        async for _ in executor.run(attempt_of("")):
            heard += 1

    async with opened("speak_for_ever") as executor:
        listening = asyncio.create_task(listen())
        most = 0
        while heard < 10_000:
            before = heard
            await asyncio.sleep(0)
            most = max(most, heard - before)
        listening.cancel()
        await asyncio.wait([listening])
    assert most <= 100
