"""What attempts say on their way is kept in order, and read as part of a log."""

from itertools import pairwise

import pytest

from adapters.testing.store_case import (
    BUSY,
    ERROR,
    OUTCOMES,
    RESULT,
    RETRY_SECONDS,
    USAGE,
    Case,
    new_task,
)
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.events import (
    Done,
    Event,
    Logged,
    Output,
    ProgressMade,
    Recorded,
    StatusChanged,
    UsageReported,
    events_of,
    lost_until,
)
from domain.ports import Claim, Completed, Entry, Failed, Fence, HandedBack, Retry
from domain.task import ANONYMOUS, MOST_PAST_ATTEMPTS, AttemptOutcome, Move, Task, TaskStatus

MUCH = 1_000


def pieces(attempt: int, *deltas: str) -> list[Recorded]:
    """So many pieces of output of this attempt, its first ones."""
    ends = [sum(map(len, deltas[:n])) for n in range(1, len(deltas) + 1)]
    numbered = enumerate(zip(deltas, ends, strict=True))
    return [Output(delta, index, attempt, end) for index, (delta, end) in numbered]


async def append(case: Case, claim: Claim, events: list[Recorded], before: int = 0) -> bool:
    """Record this much more of an attempt."""
    [is_recorded] = await case.store.append([Entry(claim.fence, before, events)])
    return is_recorded


async def log_of(case: Case, task: Task, after: int = 0, limit: int = MUCH) -> list[Event]:
    """What is known to have happened to the task."""
    page = await case.store.log(task.id, ANONYMOUS, after, limit)
    assert page is not None
    return events_of(page, after)


async def walk(case: Case, task: Task, limit: int) -> list[Event]:
    """The log of a finished task, read piece by piece."""
    events: list[Event] = []
    while not events or not isinstance(events[-1].what, Done):
        more = await log_of(case, task, events[-1].number if events else 0, limit)
        assert more, "a page that is not the last one is empty"
        events += more
    return events


class Recording(Contract):
    """What attempts say on their way is kept in order, and read as part of a log."""

    @on_event_loop
    async def test_the_log_tells_all_that_happened_numbered_without_gaps(self, case: Case) -> None:
        [claim] = await case.start()
        created = case.clock.now()
        said = [*pieces(1, "Processed ", "input: "), ProgressMade(0.5, 1), Logged("half", 1)]
        case.clock.advance(1)
        assert await append(case, claim, said[:2])
        assert await append(case, claim, said[2:], before=2)
        await case.settle(Completed(claim.fence, RESULT, USAGE))
        task, ended = await case.task(claim.task.id), case.clock.now()
        whole = [
            StatusChanged(TaskStatus.PENDING, 0, created),
            StatusChanged(TaskStatus.RUNNING, 1, created),
            *said,
            Output("hello", 2, 1, 22),
            StatusChanged(TaskStatus.COMPLETED, 1, ended, AttemptOutcome.COMPLETED, None),
            UsageReported(USAGE),
            Done(task),
        ]
        assert await log_of(case, task) == [
            Event(number, what) for number, what in enumerate(whole, 1)
        ]

    @on_event_loop
    async def test_what_nobody_recorded_of_a_text_is_told_with_the_result(self, case: Case) -> None:
        [task] = await case.finish()
        kinds = [type(event.what) for event in await log_of(case, task)]
        assert kinds == [StatusChanged, StatusChanged, Output, StatusChanged, UsageReported, Done]
        assert (await log_of(case, task))[2].what == Output("Processed input: hello", 0, 1, 22)

    @pytest.mark.parametrize("result", [b'{"output":""}', b'{"output":["a"]}', b'{"output":null}'])
    @on_event_loop
    async def test_what_is_no_text_or_an_empty_one_gives_no_piece_of_output(
        self, case: Case, result: bytes
    ) -> None:
        [claim] = await case.start()
        await case.settle(Completed(claim.fence, result, None))
        kinds = [type(event.what) for event in await log_of(case, claim.task)]
        assert kinds == [StatusChanged, StatusChanged, StatusChanged, Done]

    @on_event_loop
    async def test_a_log_goes_on_over_attempts_and_never_goes_back(self, case: Case) -> None:
        [task] = await case.submit()
        for attempt, move in enumerate([Move.RETRY, Move.HAND_BACK, Move.LOSE_WORKER], 1):
            [claim] = await case.claim()
            said = pieces(attempt, *"ab" * attempt)
            assert await append(case, claim, said, before=claim.task.recorded)
            assert await case.move(move, claim.fence)
            case.clock.advance(RETRY_SECONDS)
        [claim] = await case.claim()
        assert await append(case, claim, pieces(4, "last"), before=claim.task.recorded)
        await case.settle(Failed(claim.fence, ERROR))
        events = await log_of(case, task)
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        outputs = [event.what for event in events if isinstance(event.what, Output)]
        assert [what.attempt for what in outputs] == [1] * 2 + [2] * 4 + [3] * 6 + [4]
        statuses = [event.what for event in events if isinstance(event.what, StatusChanged)]
        assert [(what.status.value, what.attempt, what.outcome) for what in statuses] == [
            ("pending", 0, None),
            *(
                pair
                for number, outcome in enumerate(["failed", "handed_back", "worker_lost"], 1)
                for pair in [("running", number, None), ("pending", number, outcome)]
            ),
            ("running", 4, None),
            ("failed", 4, "failed"),
        ]
        assert [what.error_code for what in statuses if what.error_code] == [
            BUSY.code,
            "worker_lost",
            ERROR.code,
        ]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, MUCH])
    @on_event_loop
    async def test_parts_of_a_log_joined_are_the_log(self, case: Case, limit: int) -> None:
        [first] = await case.start()
        assert await append(case, first, pieces(1, *"Processed"))
        await case.settle(HandedBack(first.fence))
        [second] = await case.claim()
        task, said = second.task, pieces(2, *"Processed")
        assert await append(case, second, said, before=task.recorded)
        await case.settle(Completed(second.fence, RESULT, USAGE))
        whole = await log_of(case, task)
        assert await walk(case, task, limit) == whole
        for after in range(len(whole) + 3):
            assert await log_of(case, task, after) == whole[after:]

    @pytest.mark.parametrize("cuts", [[0], [0, 1], [0, 21], [0, 22], [0, 9, 10, 22], [0, 3, 17]])
    @on_event_loop
    async def test_however_much_was_recorded_the_output_told_is_the_result(
        self, case: Case, cuts: list[int]
    ) -> None:
        text = "Processed input: hello"
        recorded = [text[start:end] for start, end in pairwise(cuts)]
        [claim] = await case.start()
        assert await append(case, claim, pieces(1, *recorded))
        await case.settle(Completed(claim.fence, RESULT, USAGE))
        told = [event.what for event in await log_of(case, claim.task)]
        outputs = [what for what in told if isinstance(what, Output)]
        assert "".join(what.delta for what in outputs) == text
        assert [what.index for what in outputs] == list(range(len(outputs)))

    @on_event_loop
    async def test_an_entry_that_is_sent_again_is_recorded_once(self, case: Case) -> None:
        [claim] = await case.start()
        first, second = pieces(1, "a", "b")
        assert await append(case, claim, [first])
        assert await append(case, claim, [first])
        assert await append(case, claim, [second], before=1)
        assert await append(case, claim, [first])
        told = [event.what for event in await log_of(case, claim.task, after=2)]
        assert told == [first, second]
        assert (await case.task(claim.task.id)).recorded == 2

    @on_event_loop
    async def test_entries_of_several_attempts_are_recorded_each_for_itself(
        self, case: Case
    ) -> None:
        claims = await case.start(*(new_task() for _ in range(3)))
        await case.settle(HandedBack(claims[1].fence))
        entries = [Entry(one.fence, 0, pieces(1, one.task.id, "…")) for one in claims]
        unknown = Entry(Fence(new_task().id, 1), 0, pieces(1, "x"))
        assert await case.store.append([*entries, unknown]) == [True, False, True, False]
        for claim, count in zip(claims, [2, 0, 2], strict=True):
            events = [event.what for event in await log_of(case, claim.task)]
            outputs = [what.delta for what in events if isinstance(what, Output)]
            assert outputs == [claim.task.id, "…"][:count]
        assert await case.store.append([]) == []

    @pytest.mark.parametrize("move", OUTCOMES)
    @on_event_loop
    async def test_an_attempt_that_ended_records_nothing_more(self, case: Case, move: Move) -> None:
        [claim] = await case.start()
        await case.settle(OUTCOMES[move](claim.fence))
        before = await case.task(claim.task.id)
        assert not await append(case, claim, pieces(1, "late"))
        assert await case.task(claim.task.id) == before
        case.clock.advance(RETRY_SECONDS)
        for _ in await case.claim():  # where another attempt follows
            assert not await append(case, claim, pieces(1, "late"))

    @on_event_loop
    async def test_progress_is_the_latest_and_is_gone_with_its_attempt(self, case: Case) -> None:
        [claim] = await case.start()
        assert claim.task.progress is None
        await append(case, claim, [ProgressMade(0.25, 1), ProgressMade(0.5, 1), Logged("", 1)])
        assert (await case.task(claim.task.id)).progress == 0.5
        await append(case, claim, [Logged("no news", 1)], before=3)
        assert (await case.task(claim.task.id)).progress == 0.5
        await case.settle(Retry(claim.fence, BUSY, seconds=0))
        assert (await case.task(claim.task.id)).progress is None
        [again] = await case.claim()
        await append(case, again, [ProgressMade(1, 2)], before=again.task.recorded)
        await case.settle(Completed(again.fence, RESULT, None))
        assert (await case.task(claim.task.id)).progress == 1

    @on_event_loop
    async def test_any_text_is_recorded_as_it_is(self, case: Case) -> None:
        [claim] = await case.start()
        said: list[Recorded] = [Output("a\x00b😀é\r\n", 0, 1, 8), Logged("\x00 \u2028", 1)]
        assert await append(case, claim, said)
        assert [event.what for event in await log_of(case, claim.task, after=2)] == said

    @on_event_loop
    async def test_the_log_of_somebody_else_is_not_there(self, case: Case) -> None:
        [task] = await case.submit(new_task(owner="alice"))
        assert await case.store.log(task.id, "bob", 0, 10) is None
        assert await case.store.log(new_task().id, None, 0, 10) is None
        assert await case.store.log("a\x00\ud800", None, 0, 10) is None
        page = await case.store.log(task.id, "alice", 0, 10)
        assert page is not None
        assert page.task == await case.store.get(task.id, None)

    @on_event_loop
    async def test_what_forgotten_attempts_said_is_forgotten_with_them(self, case: Case) -> None:
        [task] = await case.submit()
        for attempt in range(1, MOST_PAST_ATTEMPTS + 4):
            [claim] = await case.claim()
            assert await append(case, claim, pieces(attempt, "a"), before=claim.task.recorded)
            await case.settle(HandedBack(claim.fence))
        [claim] = await case.claim()
        assert await append(case, claim, pieces(attempt + 1, "a"), before=claim.task.recorded)
        await case.lose()
        page = await case.store.log(task.id, ANONYMOUS, 0, MUCH)
        assert page is not None
        lost = lost_until(page.task)
        assert lost > 0
        assert [event.number > lost for event in page.recorded] == [True] * (MOST_PAST_ATTEMPTS - 1)
        events = await log_of(case, task, after=lost)
        assert [event.number for event in events] == list(range(lost + 1, lost + 1 + len(events)))

    @on_event_loop
    async def test_a_log_goes_with_its_task(self, case: Case) -> None:
        [claim] = await case.start()
        await append(case, claim, pieces(1, "a"))
        await case.store.delete(claim.task.id, ANONYMOUS)
        assert await case.store.log(claim.task.id, ANONYMOUS, 0, 10) is None
        assert not await append(case, claim, pieces(1, "b"))
