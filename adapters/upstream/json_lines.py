"""Lines of JSON, read in pieces of any size."""

from collections.abc import Iterator

from domain.errors import ResultTooLarge


class LineDecoder:
    """Turns bytes into lines that are not empty.

    Raises `ResultTooLarge` when an unfinished line has grown beyond `max_line_bytes`.
    """

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._line = bytearray()

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Take what was received next, and give each line that it completes."""
        self._line += received
        if b"\n" in received:
            *lines, self._line = self._line.split(b"\n")
            yield from (bytes(line) for line in lines if line.strip())
        if len(self._line) > self._max_line_bytes:
            raise ResultTooLarge(self._max_line_bytes)

    def rest(self) -> bytes:
        """The last line, if it has no end; empty if there is none."""
        return bytes(self._line.strip())
