"""How commands end, for scripts. 1, 2 and 3 are as they are for the service itself."""

from enum import IntEnum
from typing import Any, Final

import click

from domain.task import TaskStatus


class ExitCode(IntEnum):
    """What came of a command."""

    COMPLETED = 0
    FAILED = 1
    WRONG_USE = 2
    UNUSABLE = 3
    CANCELLED = 4
    NOT_DONE = 5
    INTERRUPTED = 130


EXIT_CODES: Final = """\b
Exit codes:
  0    it was done; a task that was waited for has completed
  1    the task has failed; of a file: any line has not completed
  2    wrong arguments, or the service finds fault with what was asked
  3    the service cannot be reached, or does not serve now (401, 403, 429, 5xx)
  4    the task was cancelled
  5    the task is not done yet (get --wait)
  130  Ctrl-C
"""

_BY_STATUS: Final = {
    TaskStatus.COMPLETED: ExitCode.COMPLETED,
    TaskStatus.FAILED: ExitCode.FAILED,
    TaskStatus.CANCELLED: ExitCode.CANCELLED,
}


def exit_code_of(task: dict[str, Any]) -> ExitCode:
    """How a command ends that waited for this task."""
    return _BY_STATUS.get(task["status"], ExitCode.NOT_DONE)


class Unusable(click.ClickException):
    """Something that the command needs cannot be used."""

    exit_code = ExitCode.UNUSABLE
