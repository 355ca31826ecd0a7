"""Server-sent events, read in pieces of any size (WHATWG HTML, section 9.2)."""

from collections.abc import Iterator

from domain.errors import ResultTooLarge


class EventStreamDecoder:
    """Turns the bytes of a `text/event-stream` into the data of its events.

    `name` is that of the event whose data was given last, empty if it has none; `last_id` the last
    id that the stream has told by then. Comments are skipped. Raises `ResultTooLarge` when an
    unfinished event has grown beyond `max_event_bytes`.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self.name = b""
        self.last_id = b""
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._data = bytearray()

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Take what was received next, and give the data of each event that it completes."""
        self._line += received
        if b"\n" in received or b"\r" in received:
            yield from self._complete_lines()
        if len(self._line) + len(self._data) > self._max_event_bytes:
            raise ResultTooLarge(self._max_event_bytes)

    def rest(self) -> bytes:
        """The data of the event that the end of the stream cut short; empty if there is none."""
        self._take_field(bytes(self._line.rstrip(b"\r\n")))
        return self._taken_data()

    def _complete_lines(self) -> Iterator[bytes]:
        lines = self._line.splitlines(keepends=True)
        # The last line goes on, and so may a "\r": the next byte can be its "\n".
        self._line = bytearray() if lines[-1].endswith(b"\n") else lines.pop()
        for line in lines:
            text = bytes(line.rstrip(b"\r\n"))
            if text:
                self._take_field(text)
                continue
            if self._data:
                yield self._taken_data()
            self.name = b""

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data += value.removeprefix(b" ") + b"\n"
        elif name == b"event":
            self.name = value.removeprefix(b" ")
        elif name == b"id":
            self.last_id = value.removeprefix(b" ")

    def _taken_data(self) -> bytes:
        data = bytes(self._data.removesuffix(b"\n"))
        self._data.clear()
        return data
