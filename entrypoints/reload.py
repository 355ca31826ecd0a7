"""New code and settings while the service runs, under `dev_mode`.

There is no second process that watches the first. This one watches its own files; when some
changed, it tries them out in a subprocess (`trial.py`). If that fails it is logged, and the old
code goes on. If not, `code_changed` returns, and `serve` stops in good order and replaces itself.
"""

import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from watchfiles import Change, awatch

_ROOT: Final = Path(__file__).parents[1]
_PACKAGES: Final = ("domain", "adapters", "entrypoints", "settings")
_SUFFIXES: Final = (".py", ".yaml", ".sql", ".html")
_TRIAL_SECONDS: Final = 30.0
_SHOWN_CHARACTERS: Final = 500

log = structlog.get_logger()


async def code_changed(files: Sequence[Path]) -> None:
    """Return once our code or one of the settings `files` changed, and the new ones were tried.

    Never returns where the operating system cannot watch files; that is logged.
    """
    settings_files = {str(path.absolute()) for path in files}

    def concerns_us(_: Change, path: str) -> bool:
        return path in settings_files or (_is_ours(path) and path.endswith(_SUFFIXES))

    try:
        async for changes in awatch(
            *_places(files), watch_filter=concerns_us, recursive=False, step=100
        ):
            if await _is_fit({path for _, path in changes}, files):
                return
    except (OSError, RuntimeError) as error:
        log.warning("reload_unavailable", reason=str(error)[:_SHOWN_CHARACTERS])
    await asyncio.Event().wait()


def _is_ours(path: str) -> bool:
    return any(path.startswith(f"{_ROOT / package}{os.sep}") for package in _PACKAGES)


def _places(files: Iterable[Path]) -> set[Path]:
    """The folders to watch. A file itself would be lost from sight when an editor replaces it."""
    ours = (_ROOT / package for package in _PACKAGES)
    folders = {path.parent for package in ours for path in package.rglob("*.py")}
    return folders | {path.absolute().parent for path in files}


async def _is_fit(changed: Iterable[str], files: Sequence[Path]) -> bool:
    log.info("code_changed", files=sorted(changed))
    fault = await _fault_of_trial(files)
    if fault:
        log.error("reload_refused", reason=fault, goes_on="the old code")
    return fault is None


async def _fault_of_trial(files: Sequence[Path]) -> str | None:
    """What is wrong with the code and settings as they are in the files now."""
    places = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    trial = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "entrypoints.trial", *map(str, files)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_TRIAL_SECONDS):
            _, said = await trial.communicate()
    except TimeoutError:
        return f"it was not ready within {_TRIAL_SECONDS:g} seconds"
    finally:
        with suppress(ProcessLookupError):
            trial.kill()
    last_line = said.decode(errors="replace").strip().rpartition("\n")[2]
    return last_line[-_SHOWN_CHARACTERS:] if trial.returncode else None
