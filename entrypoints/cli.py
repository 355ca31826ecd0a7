"""The command line: `task-agent` and `python -m entrypoints`, which start in `__main__.py`.

Exit codes: 0 a clean stop, 1 an unexpected failure, 2 wrong settings or arguments, 3 something that
is needed cannot be used. Commands import what they need when they run, so that a wrong setting is
answered at once.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from domain.errors import StoreUnusable
from entrypoints.client.commands import COMMANDS
from settings.conversion import SettingsError, Sources, join, masked, source_of
from settings.schema import ExecutorSettings, Settings


class WrongSettings(click.ClickException):
    """Ends the program with one message on standard error, and no traceback."""

    exit_code = 2


class Unusable(click.ClickException):
    """The same, where the settings are fine but something they name cannot be used."""

    exit_code = 3


class Program(click.Group):
    """Turns what can be wrong with a start into messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise WrongSettings(str(error)) from error
        except StoreUnusable as error:
            raise Unusable(str(error)) from error


_PORT = click.IntRange(0, 65535)


def _settings_option(command: Any) -> Any:
    return click.option(
        "--settings",
        "files",
        metavar="FILE",
        multiple=True,
        type=click.Path(path_type=Path),
        help="A YAML file, merged over the others; may be given more than once.",
    )(command)


@click.group(
    cls=Program, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="task-agent", message="%(prog)s %(version)s")
def main() -> None:
    """Runs inference tasks in the background: submit one over HTTP, ask for its result later.

    Settings come from settings/default.yaml, settings/<ENV>.yaml (ENV: local, develop or
    production), the files in TASK_AGENT_SETTINGS, --settings, and variables such as
    TASK_AGENT_SERVER__PORT; later wins. `task-agent settings` shows them.
    """


@main.command()
@click.option("--host", help="The address to listen on.")
@click.option("--port", type=_PORT, help="0 takes any free one, and says which.")
@click.option("--no-worker", is_flag=True, help="Accept tasks, and let other processes run them.")
@_settings_option
def serve(host: str | None, port: int | None, no_worker: bool, files: tuple[Path, ...]) -> None:
    """Run the API and the worker in one process."""
    settings, sources = _with_options(files, {"server.host": host, "server.port": port})

    from entrypoints import serve

    run = serve.serve_api if no_worker else serve.serve
    sys.exit(run(settings, sources, _files_of(files)))


@main.command()
@click.option("--host", help="The address to answer probes on.")
@click.option("--port", type=_PORT, help="Answer /livez and /readyz there; 0 takes any free one.")
@_settings_option
def worker(host: str | None, port: int | None, files: tuple[Path, ...]) -> None:
    """Run tasks that other processes accept: for a store that processes share."""
    settings, sources = _with_options(files, {"server.host": host, "worker.port": port})

    from entrypoints.serve import work

    sys.exit(work(settings, sources, _files_of(files)))


@main.command()
@_settings_option
def migrate(files: tuple[Path, ...]) -> None:
    """Bring the store's schema up to date; `serve` does it too when it starts."""
    settings, sources = _loaded(files)

    from entrypoints.bootstrap import migrate_store

    asyncio.run(migrate_store(settings, sources))
    click.echo(f"the {settings.store.backend} store is up to date")


@main.command()
@_settings_option
def settings(files: tuple[Path, ...]) -> None:
    """Show the settings in force and where each came from, secrets masked."""
    in_force, sources = _loaded(files)
    lines = [
        (f"{key} = {_as_json(masked(key, value))}", source_of(key, sources))
        for key, value in _by_key(in_force, "")
    ]
    width = min(max(len(line) for line, _ in lines), 60)
    for line, source in lines:
        click.echo(f"{line:<{width}}  # {source}")


@main.command()
@_settings_option
def executors(files: tuple[Path, ...]) -> None:
    """Show the executors with their options, and ask each whether it is well.

    Ends with exit code 3 when one is not.
    """
    in_force, sources = _with_options(files, {})

    from entrypoints.bootstrap import examine_executors, executor_kinds

    faults = asyncio.run(examine_executors(in_force, sources))
    for name, fault in faults.items():
        click.echo(f"{name}: {'ok' if fault is None else fault}")
        for option, value in _by_key(in_force.executors[name], ""):
            shown = masked(join(f"executors.{name}", option), value)
            click.echo(f"  {option} = {_as_json(shown)}")
    click.echo(f"kinds: {', '.join(executor_kinds())}, or package.module:attribute")
    sys.exit(3 if any(faults.values()) else 0)


@main.command()
@click.argument("name")
def key(name: str) -> None:
    """Make a new API key for NAME, and show it once with what to put into a settings file."""
    from entrypoints.http.access import new_key

    text, entry = new_key(name)
    click.echo(f"The key, which is shown only now:\n\n{text}\n")
    click.echo("Its entry for a settings file:\n\nsecurity:\n  api_keys:")
    click.echo(f"    - name: {_as_json(entry.name)}\n      sha256: {entry.sha256}")


@main.command()
@_settings_option
def openapi(files: tuple[Path, ...]) -> None:
    """Print the OpenAPI document."""
    in_force, _ = _loaded(files)

    from entrypoints.http.app import openapi_document

    sys.stdout.buffer.write(openapi_document(in_force))


def _with_options(files: Sequence[Path], options: Mapping[str, Any]) -> tuple[Settings, Sources]:
    """The settings of a process that is about to run, and its log configured by them."""
    from settings.loader import load_settings

    given = {key: value for key, value in options.items() if value is not None}
    settings, sources = load_settings(files, arguments=given)

    from entrypoints.logging import configure_logging

    configure_logging(settings.logging)
    return settings, sources


def _files_of(files: Sequence[Path]) -> list[Path]:
    """All the files that the settings are read from."""
    from settings.loader import settings_files

    return settings_files(files, os.environ)


def _loaded(files: Sequence[Path]) -> tuple[Settings, Sources]:
    from settings.loader import load_settings

    return load_settings(files)


def _by_key(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every setting under its dotted key, as it stands in the files."""
    if isinstance(value, ExecutorSettings):
        value = asdict(value) | value.options
        del value["options"]
    if isinstance(value, Struct):
        value = asdict(value)
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, item in value.items():
        yield from _by_key(item, join(key, name))


def _as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
