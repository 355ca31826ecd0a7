"""How attempts end, and how that is written."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from domain.errors import (
    ExecutorCrashed,
    ExecutorUnavailable,
    StoreUnavailable,
    UpstreamRejected,
)
from domain.ports import Completed
from domain.task import TaskStatus


async def test_an_attempt_that_takes_too_long_fails_for_good(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(seconds=100, timeout_seconds=2, max_attempts=3)
        [task] = await worker.until_done(task_id, within=2.1)
    assert (task.status, task.attempt, task.failures) == (TaskStatus.FAILED, 1, 1)
    assert task.error is not None
    assert task.error.code == "timeout"
    assert len(worker.executor.cancelled) == 1


async def test_a_result_that_comes_after_the_time_limit_is_a_timeout(at_work, labourer):
    async with at_work() as worker:
        task_id = await worker.submit(seconds=2.001, timeout_seconds=2)
        [task] = await worker.until_done(task_id)
    assert task.error is not None
    assert task.error.code == "timeout"


async def test_a_task_that_timed_out_is_seen_to_have_failed_before_its_executor_let_go(at_work):
    async with at_work(most=1) as worker:
        task_id = await worker.submit(seconds=100, timeout_seconds=2, lets_go_after=30)
        await worker.until_done(task_id, within=2.1)
        assert worker.executor.running == 1


async def test_a_slot_stays_taken_until_the_executor_let_go(at_work):
    async with at_work(most=1, poll_seconds=3600) as worker:
        await worker.submit(seconds=100, timeout_seconds=2, lets_go_after=30)
        following = await worker.submit()
        await worker.until_done(following, within=33)
        [(_, _, cancelled)] = worker.executor.cancelled
        [_, (_, _, started)] = worker.executor.started
    assert worker.executor.most_running == 1
    assert started - cancelled == pytest.approx(30, abs=0.1)


async def test_a_failed_attempt_is_followed_by_another_until_they_are_used_up(at_work, labourer):
    executor = labourer(busy=ExecutorUnavailable("busy", retry_after_seconds=7))
    async with at_work(executors={"one": executor}) as worker:
        [task] = await worker.until_done(await worker.submit(raises="busy", max_attempts=3))
    starts = [at for _, _, at in executor.started]
    assert [task.attempt, task.failures, task.crashes] == [3, 3, 0]
    assert task.error is not None
    assert task.error.code == "executor_unavailable"
    assert all(later - earlier >= 7 for earlier, later in pairwise(starts))


async def test_an_error_that_no_repetition_mends_ends_the_task(at_work, labourer):
    executor = labourer(refused=UpstreamRejected("no such model"))
    async with at_work(executors={"one": executor}) as worker:
        [task] = await worker.until_done(await worker.submit(raises="refused", max_attempts=3))
    assert (task.status, task.attempt) == (TaskStatus.FAILED, 1)


class Odd(BaseException):
    """What no executor should ever raise."""


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Odd(), ValueError("oops")], ids=repr)
async def test_an_executor_that_breaks_its_contract_fails_its_own_attempt_only(
    at_work, labourer, error
):
    executor = labourer(odd=error)
    async with at_work(executors={"one": executor}) as worker:
        broken = await worker.submit(raises="odd", max_attempts=2)
        sound = await worker.submit(seconds=1)
        [failed, completed] = await worker.until_done(broken, sound, within=10)
    assert (failed.status, failed.failures) == (TaskStatus.FAILED, 2)
    assert failed.error is not None
    assert failed.error.code == "executor_error"
    assert (completed.status, completed.attempt) == (TaskStatus.COMPLETED, 1)


async def test_an_executor_that_breaks_is_logged_with_the_place_and_without_its_words(
    at_work, labourer
):
    executor = labourer(odd=ValueError("the client's words"))
    with capture_logs() as logged:
        async with at_work(executors={"one": executor}) as worker:
            await worker.until_done(await worker.submit(raises="odd", max_attempts=1))
    [line] = [line for line in logged if line["event"] == "executor_broke"]
    assert (line["error"], line["attempt"]) == ("ValueError", 1)
    assert "in run" in line["trace"]
    assert "words" not in str(line)


async def test_failures_and_crashes_do_not_use_each_other_up(at_work, labourer):
    executor = labourer(busy=ExecutorUnavailable("busy"))
    async with at_work(executors={"one": executor}, max_crashes=2) as worker:
        worker.store.failing["renew"] = StoreUnavailable("away")  # each long attempt is a crash
        crashing = await worker.submit(seconds=1000, max_attempts=1)
        failing = await worker.submit(raises="busy", max_attempts=4)
        [lost, failed] = await worker.until_done(crashing, failing)
    assert lost.error is not None
    assert (lost.error.code, lost.crashes, lost.failures) == ("worker_lost", 3, 0)
    assert failed.error is not None
    assert (failed.error.code, failed.crashes, failed.failures) == ("executor_unavailable", 0, 4)


async def test_what_ends_together_is_written_in_one_call(at_work):
    async with at_work(most=4) as worker:
        task_ids = [await worker.submit(seconds=0.3) for _ in range(8)]
        await worker.until_done(*task_ids)
    assert [len(outcomes) for [outcomes] in worker.store.calls["settle"]] == [4, 4]


async def test_a_result_waits_for_a_store_that_is_away_and_nothing_more_is_claimed(at_work):
    async with at_work(most=2) as worker:
        worker.store.failing["settle"] = StoreUnavailable("away")
        worker.store.seconds["settle"] = 0.3
        # The second ends while the call for the first is under way.
        task_ids = [await worker.submit(seconds=(index + 1) / 10) for index in range(10)]
        await asyncio.sleep(20)
        assert len(worker.executor.started) <= 4  # as many again, while the first call was out
        del worker.store.failing["settle"]
        tasks = await worker.until_done(*task_ids, within=5)
    assert {(task.status, task.attempt) for task in tasks} == {(TaskStatus.COMPLETED, 1)}


WAYS_TO_END = [
    ({}, "task_completed"),
    ({"raises": "refused"}, "task_failed"),
    ({"raises": "busy"}, "task_retried"),
    ({"raises": "died"}, "task_crashed"),
    ({"seconds": 100}, "task_cancelled"),
    ({"seconds": 0.5}, "task_cancelled"),  # it ends before the worker hears of that
    ({"seconds": 100}, "task_handed_back"),
]


@pytest.mark.parametrize(("does", "told"), WAYS_TO_END)
async def test_an_outcome_that_was_written_though_its_answer_was_lost_is_told_like_any_other(
    at_work, labourer, logged, does, told
):
    executor = labourer(
        busy=ExecutorUnavailable("busy"),
        refused=UpstreamRejected("no such model"),
        died=ExecutorCrashed("gone"),
    )
    async with at_work(executors={"one": executor}) as worker:
        worker.store.losing.add("settle")
        task_id = await worker.submit(**does)
        await worker.until(1, lambda: worker.executor.started)
        if told == "task_cancelled":
            worker.store.hints = False
            await worker.cancel(task_id)
        if told == "task_handed_back":
            await worker.dispatcher.drain(0)
        await worker.until(10, lambda: len(told_of_first_attempt(logged)) == 2)
        assert worker.store.losing == set()
    assert told_of_first_attempt(logged) == ["task_started", told]


def told_of_first_attempt(logged):
    return [line["event"] for line in logged if line.get("attempt") == 1]


async def test_a_result_that_the_store_cannot_take_holds_up_no_other(at_work):
    async with at_work(most=4) as worker:
        task_ids = [await worker.submit(seconds=1) for _ in range(4)]
        odd = task_ids[1]
        settle = worker.store.memory.settle

        async def choosy(outcomes):
            for outcome in outcomes:
                if outcome.fence.task_id == odd and isinstance(outcome, Completed):
                    raise ValueError("this one cannot be bound")
            return await settle(outcomes)

        worker.store.memory.settle = choosy
        tasks = await worker.until_done(*task_ids, within=2)
    assert Counter(task.status for task in tasks) == {TaskStatus.COMPLETED: 3, TaskStatus.FAILED: 1}
    assert tasks[1].error is not None
    assert tasks[1].error.code == "result_not_storable"


async def test_lines_about_a_task_name_it_and_its_attempt_and_nothing_of_its_content(
    at_work, labourer, logged
):
    executor = labourer(busy=ExecutorUnavailable("secret words"))
    async with at_work(executors={"one": executor}) as worker:
        await worker.until_done(await worker.submit(raises="busy", max_attempts=2, words="secret"))
        await worker.until_done(await worker.submit(words="secret"))
    events = [line["event"] for line in logged if "task_id" in line]
    failed = ["task_started", "task_retried", "task_started", "task_failed"]
    assert events == [*failed, "task_started", "task_completed"]
    assert all("attempt" in line for line in logged if "task_id" in line)
    assert "secret" not in str(logged)
