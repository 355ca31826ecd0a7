"""When a failed attempt is followed by another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import (
    ExecutorFailed,
    ExecutorUnavailable,
    InvalidInput,
    ResultNotStorable,
    ResultTooLarge,
    UpstreamRejected,
)
from domain.retry import GiveUp, RetryIn, RetryPolicy

POLICY = RetryPolicy(base_seconds=1, max_seconds=60)


def decide(
    *, failures: int, roll: float, max_attempts: int = 10_000, retry_after: float | None = None
) -> RetryIn | GiveUp:
    error = ExecutorUnavailable("busy", retry_after_seconds=retry_after)
    return POLICY.decide(error, failures=failures, max_attempts=max_attempts, roll=roll)


@pytest.mark.parametrize(
    ("failures", "longest"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (5_000, 60)]
)
def test_the_longest_wait_doubles_with_every_failure_up_to_the_maximum(
    failures: int, longest: float
) -> None:
    assert decide(failures=failures, roll=1.0) == RetryIn(longest)


@given(failures=st.integers(1, 9_999), roll=st.floats(0, 1))
def test_the_wait_is_spread_over_all_of_its_range(failures: int, roll: float) -> None:
    longest = decide(failures=failures, roll=1.0)
    assert isinstance(longest, RetryIn)
    assert decide(failures=failures, roll=roll) == RetryIn(roll * longest.seconds)


@pytest.mark.parametrize(
    ("asked", "waited"), [(None, 0.5), (0, 0.5), (0.7, 0.7), (299, 299), (301, 300), (1e9, 300)]
)
def test_what_the_backend_asked_for_is_waited_for_at_least_up_to_five_minutes(
    asked: float | None, waited: float
) -> None:
    assert decide(failures=1, roll=0.5, retry_after=asked) == RetryIn(waited)


@pytest.mark.parametrize(("failures", "gives_up"), [(2, False), (3, True), (4, True)])
def test_max_attempts_is_how_many_attempts_may_fail(failures: int, gives_up: bool) -> None:
    decision = decide(failures=failures, roll=0.5, max_attempts=3)
    assert isinstance(decision, GiveUp) == gives_up


@pytest.mark.parametrize(
    "error",
    [
        UpstreamRejected("no", retry_after_seconds=1),
        InvalidInput("no"),
        ResultTooLarge(1),
        ResultNotStorable("NaN"),
        ExecutorFailed("no", retryable=False),
        ExecutorUnavailable("not implemented", retryable=False),
    ],
)
def test_an_error_that_is_not_retryable_is_final(error: UpstreamRejected) -> None:
    assert POLICY.decide(error, failures=1, max_attempts=10, roll=0.5) == GiveUp()


@pytest.mark.parametrize("error", [ExecutorUnavailable("busy"), ExecutorFailed("cut")])
def test_an_error_that_is_retryable_is_followed_by_another_attempt(
    error: ExecutorUnavailable,
) -> None:
    assert isinstance(POLICY.decide(error, failures=1, max_attempts=2, roll=0.5), RetryIn)
