"""Which tasks a query asks for."""

from typing import Any

import pytest

from adapters.testing.store_case import new_task
from domain.query import TaskQuery
from domain.task import TaskStatus

TASK = new_task(owner="alice", executor="llama", model="m").accepted(1_000)
NO_MODEL = new_task(owner="alice").accepted(1_000)


@pytest.mark.parametrize(
    ("matching", "other"),
    [
        ({"owner": None}, {"owner": "bob"}),
        (
            {"statuses": frozenset({TaskStatus.PENDING})},
            {"statuses": frozenset({TaskStatus.FAILED})},
        ),
        ({"executor": "llama"}, {"executor": "echo"}),
        ({"model": "m"}, {"model": "M"}),
        ({"created_after": 999}, {"created_after": 1_000}),
        ({"created_before": 1_001}, {"created_before": 1_000}),
    ],
)
def test_a_task_must_pass_every_filter(matching: dict[str, Any], other: dict[str, Any]) -> None:
    assert TaskQuery(**{"owner": "alice", **matching}).matches(TASK)
    assert not TaskQuery(**{"owner": "alice", **other}).matches(TASK)


def test_what_is_not_asked_for_filters_nothing() -> None:
    assert TaskQuery(owner="alice").matches(TASK)
    assert TaskQuery(owner="alice").matches(NO_MODEL)
    assert not TaskQuery(owner="alice", model="m").matches(NO_MODEL)
