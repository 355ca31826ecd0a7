"""Server-sent events come out the same however the bytes of their stream are cut."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.upstream.event_stream import EventStreamDecoder
from domain.errors import ResultTooLarge

STREAM = (
    b": hello\n\ndata: one\n\n"
    b"event: x\r\ndata:two\r\ndata:  three\r\n\r\n"
    b"id\rdata\r\rdata: four\n\n"
)
EVENTS = [b"one", b"two\n three", b"", b"four"]


def decoded(pieces, limit=1000):
    decoder = EventStreamDecoder(limit)
    return [event for piece in pieces for event in decoder.feed(piece)]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_the_events_do_not_depend_on_where_the_stream_is_cut(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    assert decoded(STREAM[a:b] for a, b in pairwise(edges)) == EVENTS


def test_an_event_has_its_name_and_the_last_id_before_its_end():
    decoder = EventStreamDecoder(1000)
    stream = b"id: 7\nevent: x\ndata: a\n\ndata: b\nid:8\n\nevent: lost\n\ndata: c\n\n"
    told = [(data, decoder.name, decoder.last_id) for data in decoder.feed(stream)]
    assert told == [(b"a", b"x", b"7"), (b"b", b"", b"8"), (b"c", b"", b"8")]


def test_the_rest_is_the_event_that_was_cut_short():
    decoder = EventStreamDecoder(1000)
    assert list(decoder.feed(b"data: one\n\ndata: tw")) == [b"one"]
    assert decoder.rest() == b"tw"


def test_a_stream_that_ended_between_events_has_no_rest():
    decoder = EventStreamDecoder(1000)
    assert list(decoder.feed(b"data: one\n\n: bye")) == [b"one"]
    assert decoder.rest() == b""


@pytest.mark.parametrize("piece", [b"x" * 10, b"data: x\n", b"data:\n"])
def test_an_event_without_an_end_is_refused_at_the_limit(piece):
    with pytest.raises(ResultTooLarge):
        decoded((piece for _ in range(10_000)), limit=1000)


def test_many_small_events_pass_below_the_limit():
    assert len(decoded([b"data: x\n\n"] * 10_000, limit=10)) == 10_000
