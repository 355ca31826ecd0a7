"""A task that somebody waits for: its output as it comes, how it goes meanwhile, how it ends.

Standard output has the output and nothing else. An attempt after the first begins its output anew:
as far as that repeats what is written already, nothing is written; where it differs, it is written
whole, on a line of its own. How it goes is told on standard error, where somebody looks at it.
"""

import sys
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final, Self

import click
import msgspec
from rich.console import Console
from rich.status import Status
from rich.text import Text

from entrypoints.client.exit_codes import ExitCode, Unusable, exit_code_of
from entrypoints.client.following import DONE, follow
from entrypoints.client.service import Refused, Service, Task
from entrypoints.client.showing import put, put_json, text_of

_GONE: Final = 410


async def wait(service: Service, task_id: str, *, as_json: bool) -> ExitCode:
    """Wait for the end of a task, and tell what came of it."""
    with _left_alone(task_id), Commentary() as commentary:
        output = None if as_json else Output(commentary)
        task = await _ended(service, task_id, commentary, output)
    if output is None:
        put_json(task)
    else:
        output.end(task)
    return exit_code_of(task)


async def _ended(
    service: Service, task_id: str, commentary: "Commentary", output: "Output | None"
) -> Task:
    """The task, when all its events are told."""
    try:
        async with aclosing(follow(service, task_id)) as events:
            async for event in events:
                data: dict[str, Any] = msgspec.json.decode(event.data)
                if event.kind == DONE:
                    return data
                commentary.tell(event.kind, data)
                if event.kind == "output" and output is not None:
                    output.take(data["delta"], data["attempt"])
    except Refused as refused:
        if refused.status != _GONE:
            raise
    return await service.until_done(task_id)


@contextmanager
def _left_alone(task_id: str) -> Iterator[None]:
    """Tell what becomes of the task when it is waited for no longer."""
    try:
        yield
    except (CancelledError, Unusable):
        click.echo(
            f"Task {task_id} goes on. `task-agent watch {task_id}` shows it, "
            f"`task-agent cancel {task_id}` stops it.",
            err=True,
        )
        raise


class Output:
    """What is written to standard output: `_standing` and `_new`, on one line.

    `_standing` is of earlier attempts. This one has said the first `_repeated` characters of it so
    far, and, if that is all of it, what is new.
    """

    def __init__(self, commentary: "Commentary") -> None:
        self._commentary = commentary
        self._attempt = 1
        self._standing = ""
        self._repeated = 0
        self._new: list[str] = []

    def take(self, delta: str, attempt: int) -> None:
        """Go on with this piece of the output of an attempt."""
        if attempt != self._attempt:
            self._attempt = attempt
            self._begin()
        rest = self._standing[self._repeated : self._repeated + len(delta)]
        if not delta.startswith(rest):
            self._begin_on_a_new_line()
            rest = ""
        self._repeated += len(rest)
        self._put(delta[len(rest) :])

    def end(self, task: Task) -> None:
        """Write what is missing, and tell why there is no more."""
        if task["result"] is not None:
            self._begin()
            self.take(text_of(task["result"]["output"]), self._attempt)
            if self._repeated < len(self._standing):
                self._begin_on_a_new_line()
            put("\n")
            return
        if self._standing or self._new:
            put("\n")
        error = task["error"]
        why = f"{error['code']}: {error['message']}" if error else f"The task is {task['status']}."
        click.echo(why, err=True)

    def _begin(self) -> None:
        self._standing = "".join([self._standing, *self._new])
        self._repeated = 0
        self._new.clear()

    def _begin_on_a_new_line(self) -> None:
        said = self._standing[: self._repeated]
        self._standing, self._repeated = "", 0
        put("\n")
        click.echo("Another attempt has another output:", err=True)
        self._put(said)

    def _put(self, text: str) -> None:
        if text:
            self._commentary.make_way()
            self._new.append(text)
            put(text)


class Commentary:
    """How it goes, on standard error, if that is a terminal: what is now, and what is to stay."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._now = Status("waiting", console=self._console)
        self._is_mid_line = False

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._now.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._now.stop()

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Tell of an event."""
        match kind:
            case "status" if data["outcome"] and data["status"] == "pending":
                self._note(f"attempt {data['attempt']}: {data['error_code'] or data['outcome']}")
                self._now.update("waiting for another attempt")
            case "status":
                self._now.update(f"{data['status']}, attempt {data['attempt']}")
            case "progress":
                self._now.update(f"{data['progress']:.0%}, attempt {data['attempt']}")
            case "log":
                self._note(data["message"])

    def make_way(self) -> None:
        """Leave the terminal to the output, if it goes there."""
        if sys.stdout.isatty():
            self._now.stop()
            self._is_mid_line = True

    def _note(self, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(Text(f"\n{text}" if self._is_mid_line else text))
