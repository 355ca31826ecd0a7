"""Whether the code and settings, as they stand in the files now, would start: run by `reload.py`.

`python -m entrypoints.trial FILE…` exits with 0, or with what is wrong in its last line. It imports
our code late, so that a file which cannot even be parsed is answered like any other fault.
"""

import asyncio
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace


async def try_out(files: Sequence[Path]) -> None:
    """Do all that a start does, but for taking the port and opening the store that is in use.

    Raises whatever is wrong.
    """
    importlib.import_module("entrypoints.serve")
    from adapters.clock import SystemClock
    from entrypoints.bootstrap import open_service, store_of
    from entrypoints.http.app import create_app
    from settings.loader import load_settings
    from settings.schema import StoreSettings

    # The files of ENV are among `files`: what is merged a second time changes nothing.
    settings, sources = load_settings(files)
    store_of(settings.store, sources, SystemClock())
    in_memory = replace(settings, store=StoreSettings(backend="memory"))
    async with open_service(in_memory, sources) as service:
        create_app(settings, service.tasks, service.lookout, service.readiness, service.metrics)


def main() -> None:
    """Try out the files named on the command line."""
    try:
        asyncio.run(try_out([Path(name) for name in sys.argv[1:]]))
    except Exception as error:  # noqa: BLE001 - whatever it is, the running service logs it
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))


if __name__ == "__main__":
    main()
