"""Which finished tasks may go."""

import pytest

from domain.retention import RetentionPolicy


def test_the_retention_age_counts_back_from_now() -> None:
    policy = RetentionPolicy(retention_seconds=1.5, max_tasks=0)
    assert policy.finished_before(now=10_000_000) == 8_500_000


def test_an_age_of_zero_expires_nothing() -> None:
    assert RetentionPolicy(retention_seconds=0, max_tasks=1).finished_before(10_000_000) is None


@pytest.mark.parametrize(
    ("seconds", "completed_at", "expires_at"),
    [(1.5, 10, 1_500_010), (1.5, None, None), (0, 10, None)],
)
def test_a_finished_task_may_go_when_its_age_is_reached(
    seconds: float, completed_at: int | None, expires_at: int | None
) -> None:
    assert RetentionPolicy(seconds, max_tasks=1).expires_at(completed_at) == expires_at


@pytest.mark.parametrize(
    ("total", "arriving", "excess"), [(0, 0, 0), (9, 1, 0), (10, 0, 0), (10, 1, 1), (25, 3, 18)]
)
def test_what_exceeds_max_tasks_once_the_new_ones_are_stored_is_too_much(
    total: int, arriving: int, excess: int
) -> None:
    assert RetentionPolicy(retention_seconds=1, max_tasks=10).excess(total, arriving) == excess


def test_a_maximum_of_zero_is_no_limit() -> None:
    assert RetentionPolicy(retention_seconds=1, max_tasks=0).excess(10**9, arriving=100) == 0
