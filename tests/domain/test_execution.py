"""One claimed task is run, and every way to end is an outcome."""

import asyncio
from collections.abc import Sequence

import pytest

from adapters.testing.fakes import ScriptedExecutor, Step
from adapters.testing.store_case import new_task
from domain.errors import (
    ExecutorCrashed,
    ExecutorFailed,
    ExecutorUnavailable,
    ExecutorUnreachable,
    UpstreamRejected,
)
from domain.execution import Execution
from domain.inference import Chunk, InferenceRequest, InferenceResult, Usage
from domain.instants import after
from domain.ports import Claim, Completed, Crashed, Failed, HandedBack, Outcome, Retry
from domain.recording import Recording
from domain.retry import RetryPolicy
from domain.task import TaskError

MAX_RESULT_BYTES = 100
MAX_CRASHES = 4


def claim_of() -> Claim:
    new = new_task(model="m", input=b'{"text":"a\\u0000b"}', options=b'{"model":"m","n":1}')
    return Claim(new.accepted(1).claimed(2), new.input, new.options)


def execution_with(executor: ScriptedExecutor) -> Execution:
    return Execution(
        {"echo": executor},
        RetryPolicy(base_seconds=10, max_seconds=60),
        max_result_bytes=MAX_RESULT_BYTES,
        max_crashes=MAX_CRASHES,
        roll=lambda: 0.5,
    )


def unheard(claim: Claim) -> Recording:
    return Recording(claim.task, lambda _: None)


def outcome_of(claim: Claim, *script: Step) -> Outcome:
    executor = ScriptedExecutor(script)

    async def scene() -> Outcome:
        outcome = await execution_with(executor).run(claim, unheard(claim))
        assert executor.running == 0, "the executor was not let go of"
        return outcome

    return asyncio.run(scene())


def test_a_result_completes_the_task_with_its_usage() -> None:
    claim, usage = claim_of(), Usage(1, 2, 3)
    script: list[Step] = [Chunk("Hel"), Chunk("lo"), InferenceResult("Hello", usage)]
    assert outcome_of(claim, *script) == Completed(claim.fence, b'{"output":"Hello"}', usage)


def test_usage_that_the_executor_does_not_know_is_not_invented() -> None:
    claim = claim_of()
    assert outcome_of(claim, InferenceResult(None)) == Completed(
        claim.fence, b'{"output":null}', None
    )


def test_the_executor_sees_the_task_as_it_was_submitted() -> None:
    claim, executor = claim_of(), ScriptedExecutor([InferenceResult("")])
    asyncio.run(execution_with(executor).run(claim, unheard(claim)))
    assert executor.requests == [
        InferenceRequest(
            task_id=claim.task.id,
            attempt=1,
            model="m",
            input={"text": "a\0b"},
            options={"model": "m", "n": 1},
            max_result_bytes=MAX_RESULT_BYTES,
        )
    ]


def test_a_retryable_error_is_retried_after_the_wait_of_the_policy() -> None:
    claim = claim_of()
    assert outcome_of(claim, ExecutorUnavailable("no connection")) == Retry(
        claim.fence, TaskError("executor_unavailable", "no connection", True), seconds=5.0
    )


def test_the_backend_is_not_asked_again_before_it_wants_to_be() -> None:
    outcome = outcome_of(claim_of(), ExecutorUnavailable("busy", retry_after_seconds=42))
    assert isinstance(outcome, Retry)
    assert outcome.seconds == 42


def test_a_final_error_fails_the_task() -> None:
    claim = claim_of()
    assert outcome_of(claim, Chunk("a"), UpstreamRejected("404")) == Failed(
        claim.fence, TaskError("upstream_rejected", "404", False)
    )


def test_the_last_attempt_that_may_fail_fails_the_task() -> None:
    new = new_task(max_attempts=2)
    error = TaskError("executor_unavailable", "busy", True)
    task = new.accepted(1).claimed(2).retried(3, 0, error).claimed(4)
    outcome = outcome_of(Claim(task, new.input, new.options), ExecutorUnavailable("busy"))
    assert isinstance(outcome, Failed)
    assert outcome.error == error


def test_lost_workers_and_hand_backs_use_up_no_attempt() -> None:
    new = new_task(max_attempts=2)
    task = new.accepted(1).claimed(2).worker_vanished(3, max_crashes=9).claimed(4)
    task = task.handed_back(5).claimed(6)
    outcome = outcome_of(Claim(task, new.input, new.options), ExecutorUnavailable("busy"))
    assert isinstance(outcome, Retry)


@pytest.mark.parametrize(
    "script",
    [
        [Chunk("x" * 60), Chunk("x" * 60), InferenceResult("short")],
        [InferenceResult("x" * MAX_RESULT_BYTES)],
    ],
)
def test_output_beyond_the_limit_is_final(script: Sequence[Step]) -> None:
    outcome = outcome_of(claim_of(), *script)
    assert isinstance(outcome, Failed)
    assert (outcome.error.code, outcome.error.retryable) == ("result_too_large", False)


def test_pieces_beyond_the_limit_stop_the_executor_at_once() -> None:
    never = asyncio.Event()
    outcome = outcome_of(claim_of(), Chunk("x" * (MAX_RESULT_BYTES + 1)), never)
    assert isinstance(outcome, Failed)


def test_a_result_that_is_not_json_is_final() -> None:
    outcome = outcome_of(claim_of(), InferenceResult(float("nan")))
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "result_not_storable"


def test_an_executor_that_ends_without_a_result_has_failed() -> None:
    outcome = outcome_of(claim_of(), Chunk("half of the ans"))
    assert isinstance(outcome, Retry)
    assert outcome.error == TaskError("executor_error", "the executor ended without a result", True)


def test_an_exception_that_is_no_executor_error_goes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        outcome_of(claim_of(), ZeroDivisionError("secret"))


def test_an_attempt_whose_executor_broke_is_retried_and_does_not_show_the_text() -> None:
    outcome = execution_with(ScriptedExecutor()).broke(claim_of(), ZeroDivisionError("secret"))
    assert isinstance(outcome, Retry)
    assert outcome.error == TaskError("executor_error", "ZeroDivisionError in the executor", True)


def test_a_message_that_no_store_could_keep_is_mended_and_a_long_one_is_cut() -> None:
    outcome = outcome_of(claim_of(), UpstreamRejected("\ud800" + "x" * 1000))
    assert isinstance(outcome, Failed)
    assert outcome.error.message == "?" + "x" * 499


def test_an_executor_may_call_its_own_failure_final() -> None:
    assert isinstance(outcome_of(claim_of(), ExecutorFailed("no", retryable=False)), Failed)


def test_nothing_is_read_beyond_the_result() -> None:
    never = asyncio.Event()
    assert isinstance(outcome_of(claim_of(), InferenceResult(""), never), Completed)


def test_an_attempt_that_took_too_long_is_final_and_names_its_limit() -> None:
    claim = claim_of()
    outcome = execution_with(ScriptedExecutor()).timed_out(claim)
    assert (outcome.fence, outcome.error.code) == (claim.fence, "timeout")
    assert "300 seconds" in outcome.error.message


@pytest.mark.parametrize(
    ("deadline_seconds", "waited", "seconds", "code"),
    [
        (None, 0, 300, "timeout"),
        (400, 0, 300, "timeout"),
        (400, 99, 300, "timeout"),
        (400, 101, 299, "deadline_exceeded"),
        (400, 100, 300, "deadline_exceeded"),
        (0.5, 0.25, 0.25, "deadline_exceeded"),
    ],
)
def test_an_attempt_may_take_its_timeout_or_until_the_deadline(
    deadline_seconds: float | None, waited: float, seconds: float, code: str
) -> None:
    new = new_task(timeout_seconds=300, deadline_seconds=deadline_seconds)
    claim = Claim(new.accepted(7).claimed(after(7, waited)), new.input, new.options)
    execution = execution_with(ScriptedExecutor())
    assert execution.seconds_for(claim) == seconds
    outcome = execution.timed_out(claim)
    assert (outcome.fence, outcome.error.code) == (claim.fence, code)
    assert outcome.error.retryable


def test_cancelling_the_run_lets_go_of_the_executor_and_gives_no_outcome() -> None:
    executor = ScriptedExecutor([Chunk("a"), asyncio.Event()])

    async def scene() -> None:
        run = asyncio.create_task(execution_with(executor).run(claim_of(), unheard(claim_of())))
        await executor.started.wait()
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled()
        assert executor.running == 0

    asyncio.run(scene())


def test_a_process_that_died_is_a_crash_and_no_failure() -> None:
    claim = claim_of()
    assert outcome_of(claim, ExecutorCrashed("killed")) == Crashed(claim.fence, MAX_CRASHES)


def test_a_task_that_did_not_reach_a_backend_known_to_be_down_waits_with_the_others() -> None:
    claim, executor = claim_of(), ScriptedExecutor([ExecutorUnreachable("no connection")])
    execution = execution_with(executor)
    assert isinstance(asyncio.run(execution.run(claim, unheard(claim))), Retry)
    executor.left = 0
    assert asyncio.run(execution.run(claim, unheard(claim))) == HandedBack(claim.fence)


def test_a_task_that_a_backend_turned_away_has_failed_also_where_that_is_known_to_be_down() -> None:
    claim, executor = claim_of(), ScriptedExecutor([ExecutorUnavailable("503")])
    executor.left = 0
    assert isinstance(asyncio.run(execution_with(executor).run(claim, unheard(claim))), Retry)
