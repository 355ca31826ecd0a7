"""The commands that ask a service, wherever it runs. Each imports what it needs when it runs."""

import os
import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import click
import msgspec

from domain.task import TaskStatus
from entrypoints.client.exit_codes import EXIT_CODES, ExitCode, exit_code_of

if TYPE_CHECKING:
    from entrypoints.client.service import Service

_API_KEY: Final = "TASK_AGENT_API_KEY"
_STATUS: Final = click.Choice([str(status) for status in TaskStatus])
_VISIBLE: Final = re.compile(r"[!-~]{1,255}")


def _visible(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    """The text, or texts, as they may stand in the head of a request."""
    for text in [value] if isinstance(value, str) else value or ():
        if not _VISIBLE.fullmatch(text):
            raise click.BadParameter(f"{text[:100]!r}; allowed: 1 … 255 visible ASCII characters")
    return value


_one_task = click.argument("task_id", metavar="ID", callback=_visible)
_json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")
_wait_option = click.option(
    "--wait", "waits", is_flag=True, help="Wait for its end, and write its output as it comes."
)


def _url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _is_whole(value):
        raise click.BadParameter(f"{value[:100]!r}; allowed: http:// or https://, a host, a path")
    return value.rstrip("/")


def _is_whole(text: str) -> bool:
    try:
        url = urlsplit(text)
        parts = (url.scheme in {"http", "https"}, url.hostname, url.port != 0)
    except ValueError:
        return False
    return all(parts) and not ("@" in url.netloc or url.query or url.fragment)


def _command(ask: Callable[..., Coroutine[Any, Any, ExitCode]]) -> click.Command:
    """The command that runs this with the service to ask, and ends with the exit code it gives."""

    @click.option(
        "--url",
        envvar="TASK_AGENT_URL",
        default="http://127.0.0.1:8000",
        show_default=True,
        show_envvar=True,
        callback=_url,
        help="Where the service is.",
    )
    @click.option(
        "--patience",
        "patience_seconds",
        type=click.FloatRange(min=0),
        default=60,
        show_default=True,
        metavar="SECONDS",
        help="How long to go on asking when it has gone, or refuses for now.",
    )
    @wraps(ask)
    def run(url: str, patience_seconds: float, **arguments: Any) -> None:
        import asyncio
        import gc

        from entrypoints.client.service import Service

        async def ask_service() -> ExitCode:
            async with Service(url, _api_key(), patience_seconds) as service:
                return await ask(service, **arguments)

        gc.enable()  # `__main__` lets it rest until a service is ready
        try:
            sys.exit(asyncio.run(ask_service()))
        except KeyboardInterrupt:
            sys.exit(ExitCode.INTERRUPTED)

    return click.command(epilog=EXIT_CODES)(run)


def _api_key() -> str | None:
    key = os.environ.get(_API_KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise click.UsageError(f"{_API_KEY} (a variable) must be of visible ASCII characters")
    return key or None


# --- submit --------------------------------------------------------------------------------------


def _utf8(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The text, which came as bytes that need not be one."""
    try:
        return value and value.encode().decode()
    except UnicodeError:
        raise click.BadParameter("it is not UTF-8") from None


def _text(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The text itself, or that on standard input, as it is; a shell that completes has none."""
    if value == "-" and not context.resilient_parsing:
        value = sys.stdin.buffer.read().decode(errors="surrogateescape")
    return _utf8(context, parameter, value)


def _options(
    _context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> dict[str, Any]:
    """Each NAME=JSON as an option of the task."""
    options = {}
    for value in values:
        name, _, text = value.partition("=")
        try:
            options[name] = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            example = "temperature=0.7 or stop='[\"end\"]'"
            raise click.BadParameter(
                f"{value[:100]!r}; allowed: NAME=JSON, such as {example}"
            ) from None
    return options


@_command
@click.argument("text", required=False, callback=_text)
@click.option("--model", callback=_utf8, help="Which model is to answer.")
@click.option(
    "--option",
    "options",
    metavar="NAME=JSON",
    multiple=True,
    callback=_options,
    help="Passed on to the executor, such as temperature=0.7; may be given more than once.",
)
@click.option("--priority", type=click.IntRange(-10, 10), help="-10 … 10; a step is a minute.")
@click.option("--key", callback=_visible, help="What is sent again under one key is one task.")
@_wait_option
@_json_option
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Submit each line: a submission as the API takes it, or the JSON string of an input.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the results of a file go; else FILE, ending in .results.jsonl.",
)
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="So many lines of a file.",
)
async def submit(
    service: "Service",
    *,
    text: str | None,
    file: Path | None,
    out: Path | None,
    key: str | None,
    at_once: int,
    waits: bool,
    as_json: bool,
    **fields: Any,
) -> ExitCode:
    """Submit a text, or each line of a file, as a task.

    TEXT `-` is what stands on standard input. Without --wait the new id is shown.

    A file is always waited for: `{"line": 1, "task": …}` is written to --out as tasks end, or
    `{"line": 1, "error": …}` where the service finds fault with a line. Killed and started again,
    it goes on.
    """
    from entrypoints.client.submission import body_of, given_fields

    given = given_fields(**fields)
    if file is not None and text is None and key is None:
        from entrypoints.client.bulk import run

        return await run(service, file, out or file.with_suffix(".results.jsonl"), given, at_once)
    if text is None or file is not None or out is not None:
        raise click.UsageError("give TEXT (perhaps with --key) or --file (perhaps with --out)")
    task = await service.submit(body_of(text, given), key or uuid4().hex)
    return await _shown(service, task, waits=waits, as_json=as_json)


async def _shown(
    service: "Service", task: dict[str, Any], *, waits: bool, as_json: bool
) -> ExitCode:
    """Show the new task: that it is there, or its end."""
    from entrypoints.client import showing

    if waits:
        from entrypoints.client.waiting import wait

        return await wait(service, task["task_id"], as_json=as_json)
    if as_json:
        showing.put_json(task)
    else:
        showing.put(f"{task['task_id']}\n")
    return ExitCode.COMPLETED


# --- one task ------------------------------------------------------------------------------------


@_command
@_one_task
@click.option(
    "--wait",
    "wait_seconds",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="Wait so long for its end, and let the exit code tell of it.",
)
@_json_option
async def get(
    service: "Service", *, task_id: str, wait_seconds: int | None, as_json: bool
) -> ExitCode:
    """Show a task, and what there is of its output."""
    from entrypoints.client import showing

    task = await service.task_within(task_id, wait_seconds or 0)
    (showing.put_json if as_json else showing.put_task)(task)
    return ExitCode.COMPLETED if wait_seconds is None else exit_code_of(task)


@_command
@_one_task
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only what follows this one.")
@_json_option
async def watch(service: "Service", *, task_id: str, after: int, as_json: bool) -> ExitCode:
    """Show the events of a task, until it ends."""
    from entrypoints.client import watching

    return await watching.watch(service, task_id, after, as_json=as_json)


@_command
@_one_task
@_wait_option
@_json_option
async def retry(service: "Service", *, task_id: str, waits: bool, as_json: bool) -> ExitCode:
    """Submit a failed or cancelled task once more.

    The new id is shown, as by `submit`.
    """
    return await _shown(service, await service.retry(task_id), waits=waits, as_json=as_json)


# --- many tasks ----------------------------------------------------------------------------------


@_command
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True, callback=_visible)
@_json_option
async def cancel(service: "Service", *, task_ids: Sequence[str], as_json: bool) -> ExitCode:
    """Let nothing come of these tasks.

    Their statuses are shown; what is `running` ends soon.
    """
    from entrypoints.client import showing
    from entrypoints.client.service import Refused

    code = ExitCode.COMPLETED
    for task_id in task_ids:
        try:
            task = await service.cancel(task_id)
        except Refused as refused:
            click.echo(f"{task_id}: {refused.message}", err=True)
            code = ExitCode.WRONG_USE
            continue
        showing.put_status(task, as_json=as_json)
    return code


@_command
@click.option(
    "--status", "statuses", type=_STATUS, multiple=True, help="May be given more than once."
)
@click.option("--model", callback=_utf8, help="Only those of this model.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many.")
@click.option("--all", "is_all", is_flag=True, help="However many there are.")
@_json_option
async def list_command(
    service: "Service",
    *,
    statuses: Sequence[str],
    model: str | None,
    limit: int,
    is_all: bool,
    as_json: bool,
) -> ExitCode:
    """Show tasks, the newest first.

    On a terminal they are a table, elsewhere lines with tabs between their cells.
    """
    from entrypoints.client import showing

    filters = [("status", status) for status in statuses]
    filters += [] if model is None else [("model", model)]
    tasks = service.tasks(filters, sys.maxsize if is_all else limit)
    await showing.put_tasks(tasks, as_json=as_json)
    return ExitCode.COMPLETED


@_command
@_json_option
async def queue(service: "Service", *, as_json: bool) -> ExitCode:
    """Show what waits and what runs.

    It is counted in all, by executor and by model, and shown as by `list`.
    """
    from entrypoints.client import showing

    answer = await service.queue()
    (showing.put_json if as_json else showing.put_queue)(answer)
    return ExitCode.COMPLETED


COMMANDS: Final = (submit, get, list_command, cancel, retry, watch, queue)
