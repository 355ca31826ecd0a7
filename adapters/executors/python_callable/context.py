"""What a function is given as its third argument, if it takes one."""

import math
from collections.abc import Callable
from typing import Any, Final

from domain.inference import LogLine, Progress

_LONGEST_LOG_LINE: Final = 2_000


class Context:
    """The attempt that runs, and a way to say something about it.

    `attempt` counts from 1. `loaded` is what the `load` function of the settings returned, None
    where there is none. What is said after the end of the attempt goes nowhere.
    """

    def __init__(
        self,
        *,
        task_id: str,
        attempt: int,
        model: str | None,
        loaded: Any,
        say: Callable[[Progress | LogLine], None],
    ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.model = model
        self.loaded = loaded
        self._say = say
        self._is_cancelled = False
        self._is_over = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more: return soon, or be killed."""
        return self._is_cancelled

    def progress(self, fraction: float) -> None:
        """Tell how far the attempt is: 0 … 1. Raises ValueError beyond."""
        if not (math.isfinite(fraction) and 0 <= fraction <= 1):
            raise ValueError(f"progress is a fraction of 0 to 1, not {fraction}")
        self._tell(Progress(float(fraction)))

    def log(self, message: object) -> None:
        """Tell whoever watches the task; at most 2,000 characters."""
        text = str(message)[:_LONGEST_LOG_LINE]
        self._tell(LogLine(text.encode(errors="replace").decode()))

    def cancel(self) -> None:
        """Set the flag; for the executor."""
        self._is_cancelled = True

    def close(self) -> None:
        """The attempt is over; for the executor."""
        self._is_over = True

    def _tell(self, piece: Progress | LogLine) -> None:
        if not self._is_over:
            self._say(piece)
