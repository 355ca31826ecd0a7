"""The parts of an answer's body: the whole, its events, or its lines."""

from collections.abc import AsyncGenerator

from adapters.upstream.answer import END_MARK
from adapters.upstream.client import Reply
from adapters.upstream.event_stream import EventStreamDecoder
from adapters.upstream.json_lines import LineDecoder


async def whole(reply: Reply) -> bytes:
    """All of it."""
    return await reply.body.read_all(reply.max_part_bytes)


async def events(reply: Reply) -> AsyncGenerator[bytes, None]:
    """The data of each event. An event that the end cut short is left out, but for an end mark."""
    decoder = EventStreamDecoder(reply.max_part_bytes)
    while received := await reply.body.read():
        for event in decoder.feed(received):
            yield event
    if decoder.rest() == END_MARK:
        yield END_MARK


async def lines(reply: Reply) -> AsyncGenerator[bytes, None]:
    """Each line that is not empty; the last one needs no end."""
    decoder = LineDecoder(reply.max_part_bytes)
    while received := await reply.body.read():
        for line in decoder.feed(received):
            yield line
    if rest := decoder.rest():
        yield rest
