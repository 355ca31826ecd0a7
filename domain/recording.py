"""What an attempt says, on its way into the log."""

from collections.abc import Callable, Sequence
from typing import Final

from domain.events import Logged, Output, ProgressMade, Recorded
from domain.inference import Chunk, LogLine, Progress
from domain.task import Task

LONGEST_LINE: Final = 2_000
"""Characters of one log line; what is longer is cut."""
MOST_LOGGED: Final = 100_000
"""Characters of all log lines of an attempt; what comes then is left out, and that is said."""
_LEAST_COUNTED: Final = 100
_NO_MORE: Final = "(this attempt logged too much: no more lines are kept)"


class Recording:
    """Gathers the pieces of one attempt until somebody stores them.

    What came in a row becomes one event: the pieces of output joined, and the latest progress.
    """

    __slots__ = (
        "_attempt",
        "_characters",
        "_due",
        "_index",
        "_may_log",
        "_task_id",
        "_waiting",
        "_wake",
        "before",
        "stored",
    )

    def __init__(self, task: Task, wake: Callable[[str], None]) -> None:
        """For the attempt that `task` is at. `wake` gets its id when something is to be stored."""
        self._task_id = task.id
        self._attempt = task.attempt
        self._wake = wake
        self._waiting: list[Chunk | Progress | LogLine] = []
        self._due: list[Recorded] = []
        self._index = 0
        self._characters = 0
        self._may_log = MOST_LOGGED
        self.before = task.recorded
        self.stored = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store."""
        return not (self._waiting or self._due)

    def add(self, piece: Chunk | Progress | LogLine) -> None:
        """Take the next piece."""
        if isinstance(piece, LogLine):
            if self._may_log <= 0:
                return
            piece = self._kept(piece.message)
        elif isinstance(piece, Progress):
            self._drop_last_progress()
        self._waiting.append(piece)
        if len(self._waiting) == 1:
            self._wake(self._task_id)

    def due(self) -> Sequence[Recorded]:
        """What is to be stored next; the same until `mark_stored` says that it was.

        `before` is how many events the task had recorded before these.
        """
        if not self._due:
            waiting, self._waiting = self._waiting, []
            self._due = self._events(waiting)
        return self._due

    def mark_stored(self) -> None:
        """What `due` gave is stored."""
        self.before += len(self._due)
        self.stored += len(self._due)
        self._due = []

    def leave_output_to_the_result(self) -> None:
        """What waits of the output need not be stored: a result tells it too."""
        self._waiting = [piece for piece in self._waiting if not isinstance(piece, Chunk)]

    def _events(self, pieces: Sequence[Chunk | Progress | LogLine]) -> list[Recorded]:
        latest = next((one for one in reversed(pieces) if isinstance(one, Progress)), None)
        events: list[Recorded] = []
        texts: list[str] = []
        for piece in pieces:
            if isinstance(piece, Chunk):
                texts.append(piece.delta)
                continue
            told = self._told(piece, latest)
            if told is not None:
                events += [*self._output(texts), told]
                texts = []
        return [*events, *self._output(texts)]

    def _told(self, piece: Progress | LogLine, latest: Progress | None) -> Recorded | None:
        if isinstance(piece, LogLine):
            return Logged(piece.message, self._attempt)
        if piece is not latest:
            return None
        return ProgressMade(min(1.0, max(0.0, piece.fraction)), self._attempt)

    def _output(self, texts: Sequence[str]) -> list[Recorded]:
        delta = "".join(texts)
        if not delta:
            return []
        self._characters += len(delta)
        self._index += 1
        return [Output(delta, self._index - 1, self._attempt, self._characters)]

    def _drop_last_progress(self) -> None:
        if self._waiting and isinstance(self._waiting[-1], Progress):
            self._waiting.pop()

    def _kept(self, message: str) -> LogLine:
        """What is kept of a line: at once, so that lines which wait are bounded too."""
        text = message[:LONGEST_LINE]
        self._may_log -= max(_LEAST_COUNTED, len(text))
        return LogLine(text.encode(errors="replace").decode() if self._may_log > 0 else _NO_MORE)
