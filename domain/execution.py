"""The use case of workers: run one claimed task, and judge how it ended."""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from math import inf
from typing import Final

import msgspec

from domain.errors import (
    ExecutorCrashed,
    ExecutorError,
    ExecutorFailed,
    ExecutorUnreachable,
    ResultNotStorable,
    ResultTooLarge,
)
from domain.inference import Chunk, InferenceRequest, InferenceResult, encode_result
from domain.instants import seconds_between
from domain.ports import (
    Claim,
    Completed,
    Crashed,
    Executor,
    Failed,
    HandedBack,
    Outcome,
    Retry,
)
from domain.recording import Recording
from domain.retry import RetryIn, RetryPolicy
from domain.task import DEADLINE_EXCEEDED, Task, TaskError

_LONGEST_MESSAGE: Final = 500

_decode: Final = msgspec.json.Decoder().decode


class Execution:
    """Runs attempts through their executors; every way to end is an `Outcome`."""

    def __init__(
        self,
        executors: Mapping[str, Executor],
        retry: RetryPolicy,
        max_result_bytes: int,
        max_crashes: int,
        roll: Callable[[], float],
    ) -> None:
        """`roll` gives random numbers of 0 … 1, for the jitter of retries."""
        self._executors = executors
        self._retry = retry
        self._max_result_bytes = max_result_bytes
        self._max_crashes = max_crashes
        self._roll = roll

    async def run(self, claim: Claim, recording: Recording) -> Outcome:
        """Run the attempt to its end; what it says on its way is recorded.

        Cancelling it cancels the executor, and gives no outcome. Whatever an executor raises that
        is no `ExecutorError` goes through; `broke` says what becomes of the attempt then.
        """
        try:
            result = await self._result_of(claim, recording)
            text = encode_result(result, self._max_result_bytes)
        except ExecutorError as error:
            return self._outcome_of(claim, error)
        if isinstance(result.output, str):
            recording.leave_output_to_the_result()
        return Completed(claim.fence, text, result.usage)

    def room(self, executor: str) -> int | None:
        """See `Executor.room`."""
        return self._executors[executor].room()

    def seconds_for(self, claim: Claim) -> float:
        """How long the attempt may take from its claim on: its timeout, or until the deadline."""
        return min(claim.task.timeout_seconds, _seconds_to_deadline(claim.task))

    def timed_out(self, claim: Claim) -> Failed:
        """The outcome of an attempt that took longer than `seconds_for` it. Final."""
        if _seconds_to_deadline(claim.task) <= claim.task.timeout_seconds:
            return Failed(claim.fence, DEADLINE_EXCEEDED)
        message = f"the attempt took longer than {claim.task.timeout_seconds:g} seconds"
        return Failed(claim.fence, TaskError("timeout", message, retryable=True))

    def broke(self, claim: Claim, error: BaseException) -> Retry | Failed:
        """The outcome of an attempt whose executor raised what none should: its own mistake."""
        return self._judge(claim, ExecutorFailed(f"{type(error).__name__} in the executor"))

    async def _result_of(self, claim: Claim, recording: Recording) -> InferenceResult:
        task = claim.task
        executor = self._executors[task.executor]
        request = InferenceRequest(
            task_id=task.id,
            attempt=task.attempt,
            model=task.model,
            input=_decode(claim.input),
            options=_decode(claim.options),
            max_result_bytes=self._max_result_bytes,
        )
        size = 0
        async with aclosing(executor.run(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, InferenceResult):
                    return _agreeing(piece, size)
                if isinstance(piece, Chunk):
                    size += _characters(piece.delta)
                if size > self._max_result_bytes:
                    raise ResultTooLarge(self._max_result_bytes)
                recording.add(piece)
        raise ExecutorFailed("the executor ended without a result")

    def _outcome_of(self, claim: Claim, error: ExecutorError) -> Outcome:
        match error:
            case ExecutorCrashed():
                return Crashed(claim.fence, self._max_crashes)
            case ExecutorUnreachable() if self.room(claim.task.executor) == 0:
                # It is known to be down, and was not reached: the task waits with the others.
                return HandedBack(claim.fence)
            case _:
                return self._judge(claim, error)

    def _judge(self, claim: Claim, error: ExecutorError) -> Retry | Failed:
        task = claim.task
        message = error.message[:_LONGEST_MESSAGE].encode(errors="replace").decode()
        shown = TaskError(error.code, message, error.retryable)
        decision = self._retry.decide(
            error, failures=task.failures + 1, max_attempts=task.max_attempts, roll=self._roll()
        )
        if isinstance(decision, RetryIn):
            return Retry(claim.fence, shown, decision.seconds)
        return Failed(claim.fence, shown)


def _characters(text: str) -> int:
    """How many there are. Raises `ResultNotStorable` for a lone surrogate among them."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ResultNotStorable(str(error)[:100]) from error
    return len(text)


def _agreeing(result: InferenceResult, characters: int) -> InferenceResult:
    """The result, which is not another text than the one that came in pieces."""
    if characters and isinstance(result.output, str) and len(result.output) != characters:
        raise ExecutorFailed("the executor's pieces are not its output", retryable=False)
    return result


def _seconds_to_deadline(task: Task) -> float:
    """Counted from the claim, by the store's clock, which gave both instants."""
    if task.deadline is None or task.started_at is None:
        return inf
    return seconds_between(task.started_at, task.deadline)
