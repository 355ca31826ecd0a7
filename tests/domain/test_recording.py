"""What an attempt says is gathered, and becomes few events."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.testing.store_case import new_task
from domain.events import Logged, Output, ProgressMade, Recorded
from domain.inference import Chunk, LogLine, Progress
from domain.recording import LONGEST_LINE, MOST_LOGGED, Recording

PIECES = st.lists(
    st.builds(Chunk, st.text(max_size=3))
    | st.builds(Progress, st.floats(0, 1))
    | st.builds(LogLine, st.text(max_size=3))
)


def recording() -> Recording:
    return Recording(new_task().accepted(1).claimed(2), lambda _: None)


def taken(one: Recording) -> list[Recorded]:
    events = list(one.due())
    one.mark_stored()
    return events


@given(PIECES, st.integers(1, 5))
def test_whenever_it_is_taken_the_output_is_whole_and_numbered(
    pieces: list[Chunk | Progress | LogLine], every: int
) -> None:
    one, events = recording(), list[Recorded]()
    for number, piece in enumerate(pieces):
        one.add(piece)
        if number % every == 0:
            events += taken(one)
    events += taken(one)
    assert one.is_empty
    outputs = [event for event in events if isinstance(event, Output)]
    text = "".join(piece.delta for piece in pieces if isinstance(piece, Chunk))
    assert "".join(event.delta for event in outputs) == text
    assert [event.index for event in outputs] == list(range(len(outputs)))
    assert all(event.delta for event in outputs)
    assert [event.end for event in outputs][-1:] == ([len(text)] if text else [])
    lines = [event.message for event in events if isinstance(event, Logged)]
    assert lines == [piece.message for piece in pieces if isinstance(piece, LogLine)]
    assert (one.before, one.stored) == (len(events), len(events))


def test_pieces_in_a_row_become_one_and_other_things_keep_their_place() -> None:
    one = recording()
    pieces: list[Chunk | Progress | LogLine] = [Chunk("a"), Chunk("b"), LogLine("said")]
    for piece in [*pieces, Progress(0.1), Chunk("c"), Progress(1)]:
        one.add(piece)
    assert taken(one) == [
        Output("ab", 0, 1, 2),
        Logged("said", 1),
        Output("c", 1, 1, 3),
        ProgressMade(1, 1),
    ]


def test_it_gives_the_same_until_that_is_stored() -> None:
    one = recording()
    one.add(Chunk("a"))
    first = list(one.due())
    one.add(Chunk("b"))
    assert list(one.due()) == first
    assert one.before == 0
    one.mark_stored()
    assert one.before == 1
    assert taken(one) == [Output("b", 1, 1, 2)]


def test_it_wakes_whoever_stores_it_once_there_is_something_and_not_for_each_piece() -> None:
    woken: list[str] = []
    task = new_task().accepted(1).claimed(2)
    one = Recording(task, woken.append)
    one.add(Chunk("a"))
    one.add(Chunk("b"))
    assert woken == [task.id]
    taken(one)
    one.add(Chunk("c"))
    assert woken == [task.id, task.id]


def test_what_a_result_tells_too_is_left_to_it() -> None:
    one = recording()
    one.add(Chunk("a"))
    taken(one)
    one.add(Chunk("b"))
    one.add(LogLine("said"))
    one.leave_output_to_the_result()
    assert taken(one) == [Logged("said", 1)]


def test_log_lines_are_bounded_each_and_together() -> None:
    one = recording()
    one.add(LogLine("x" * 2 * LONGEST_LINE))
    [line] = taken(one)
    assert isinstance(line, Logged)
    assert line.message == "x" * LONGEST_LINE
    for _ in range(100_000):
        one.add(LogLine("…"))
        one.add(Progress(0.5))
    assert len(one._waiting) <= 2 * MOST_LOGGED / 100
    lines = [event.message for event in taken(one) if isinstance(event, Logged)]
    assert len(lines) <= MOST_LOGGED / 100
    assert set(lines[:-1]) == {"…"}
    assert "no more lines" in lines[-1]
    one.add(LogLine("one more"))
    assert taken(one) == []


@pytest.mark.parametrize(
    ("said", "kept"), [(-1.0, 0.0), (1.5, 1.0), (float("nan"), 0.0), (0.5, 0.5)]
)
def test_progress_is_a_fraction_whatever_an_executor_says(said: float, kept: float) -> None:
    one = recording()
    one.add(Progress(said))
    assert taken(one) == [ProgressMade(kept, 1)]


def test_a_line_that_is_no_text_is_made_one() -> None:
    one = recording()
    one.add(LogLine("a\ud800"))
    [line] = taken(one)
    assert isinstance(line, Logged)
    assert json.dumps(line.message).isascii()
    assert line.message.encode()
