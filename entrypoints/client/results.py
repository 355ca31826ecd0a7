"""The file with what came of the lines of another: one line of JSON for each, as they end.

    {"line": 17, "task": {…}}                               as `GET /api/v1/task/{task_id}` shows it
    {"line": 18, "error": {"code", "detail", "errors"}}     the service finds fault with the line

A line is written in one go. If that was cut short by the end of the process, the next one that
opens the file cuts off what there is of it.
"""

import fcntl
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from entrypoints.client.exit_codes import Unusable


class _Status(Struct):
    status: str


class _Result(Struct):
    """As much of a result as is counted. Without a task the line was refused."""

    line: int
    task: _Status | None = None


_decode = msgspec.json.Decoder(_Result).decode


class Results:
    """The results of a run, for one process at a time.

    `lines` are the numbers of those that have theirs, `outcomes` counts what they were.
    """

    def __init__(self, path: Path) -> None:
        self.lines: set[int] = set()
        self.outcomes: Counter[str] = Counter()
        self._path = path

    def __enter__(self) -> Self:
        """Open the file, or make it. Raises `Unusable`."""
        with ExitStack() as opening:
            try:
                self._file = opening.enter_context(self._path.open("ab", buffering=0))
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._read()
            except BlockingIOError:
                raise Unusable(f"another run writes to {self._path}") from None
            except OSError as error:
                raise self._unusable(error) from None
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, line: int, result: dict[str, Any]) -> None:
        """Write what came of a line. Raises `Unusable`."""
        text = msgspec.json.encode({"line": line, **result})
        try:
            written = self._file.write(text + b"\n")
        except OSError as error:
            raise self._unusable(error) from None
        if written <= len(text):
            raise Unusable(f"{self._path} cannot be used: there is no more room")
        self._count(_decode(text))

    def _read(self) -> None:
        end = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    self._file.truncate(end)
                    return
                end += len(line)
                self._count(self._result(number, line))

    def _result(self, number: int, line: bytes) -> _Result:
        try:
            return _decode(line)
        except msgspec.DecodeError:
            raise Unusable(f"{self._path}, line {number}: this is no result") from None

    def _unusable(self, error: OSError) -> Unusable:
        return Unusable(f"{self._path} cannot be used: {error.strerror}")

    def _count(self, result: _Result) -> None:
        self.lines.add(result.line)
        self.outcomes[result.task.status if result.task else "refused"] += 1
