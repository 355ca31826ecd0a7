"""New code and settings while the service runs, under `dev_mode`.

There is no second process that watches the first. This one watches its own files; when some
changed, it tries them out in a subprocess (`trial.py`). If that fails it is logged, and the old
code goes on. If not, `code_changed` returns, and `serve` stops in good order and replaces itself.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final

import structlog
from watchfiles import Change, awatch

_ROOT: Final = Path(__file__).parents[1]
_PACKAGES: Final = ("domain", "adapters", "entrypoints", "settings")
_SUFFIXES: Final = (".py", ".yaml", ".sql", ".html")
_TRIAL_SECONDS: Final = 60.0
_IMPORTED_AT: Final = time.time()
_SHOWN_CHARACTERS: Final = 500

log = structlog.get_logger()


async def code_changed(files: Sequence[Path]) -> None:
    """Return once our code or one of the settings `files` changed, and the new ones were tried.

    Never returns where the operating system cannot watch files; that is logged.
    """
    watched = Watched(files)
    try:
        async with aclosing(_changes(watched)) as changes:
            async for changed in changes:
                log.info("code_changed", files=sorted(changed))
                fault = await _fault_of_trial(files)
                if fault is None:
                    return
                log.error("reload_refused", reason=fault, goes_on="the old code")
    except (OSError, RuntimeError) as error:
        log.warning("reload_unavailable", reason=str(error)[:_SHOWN_CHARACTERS])
    await asyncio.Event().wait()


async def _changes(watched: "Watched") -> AsyncGenerator[set[str], None]:
    """The paths of changed files, from the moment on at which this process read its own."""
    seen = awatch(*watched.folders, watch_filter=watched.holds, recursive=False, step=100)
    async with aclosing(seen):
        first = asyncio.ensure_future(anext(seen))
        await asyncio.sleep(0)  # the system watches from here on: no change of now can be missed
        try:
            if early := watched.changed_since(_IMPORTED_AT):
                yield early
            yield {path for _, path in await first}
        finally:
            first.cancel()
            await asyncio.wait([first])
        async for changes in seen:
            yield {path for _, path in changes}


class Watched:
    """Our own files, and those of the settings.

    Their folders are watched: a file itself would be lost from sight when an editor replaces it.
    """

    def __init__(self, settings_files: Iterable[Path]) -> None:
        self._settings_files = {os.path.normpath(path.absolute()) for path in settings_files}
        files = [path for package in _PACKAGES for path in (_ROOT / package).rglob("*.*")]
        self._ours = {str(path.parent) for path in files if path.suffix in _SUFFIXES}
        self.folders = self._ours | {str(Path(path).parent) for path in self._settings_files}

    def holds(self, _: Change, path: str) -> bool:
        """Whether this is one of the files."""
        folder, name = os.path.split(path)
        return path in self._settings_files or (folder in self._ours and name.endswith(_SUFFIXES))

    def changed_since(self, moment: float) -> set[str]:
        """The files written after it; one of the future would have us start again for ever."""
        entries = [entry for folder in self.folders for entry in os.scandir(folder)]
        return {
            entry.path
            for entry in entries
            if self.holds(Change.modified, entry.path)
            and moment < entry.stat().st_mtime <= time.time()
        }


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
