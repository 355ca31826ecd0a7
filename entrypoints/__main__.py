"""Where the program starts: `task-agent` and `python -m entrypoints`.

The names of the four packages are so general that another distribution, or the working directory,
may hold one of the same name. So this is looked at before anything is imported from them.
"""

import gc
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import cast

_UNUSABLE = 3


def main() -> None:
    """Run the command line, unless a package would come from somewhere else."""
    if fault := foreign_package():
        print(f"Error: {fault}", file=sys.stderr)  # noqa: T201 - there is no command line yet
        sys.exit(_UNUSABLE)

    _start_light()
    from entrypoints.cli import main as command_line

    command_line(prog_name="task-agent")


def _start_light() -> None:
    """Leave out what makes imports a third slower and is not needed.

    Modules are no garbage, so the collector rests until the service is ready. And structlog loads
    rich wherever it finds it, to show tracebacks in a way that this service does not.
    """
    gc.disable()
    sys.modules["rich"] = cast("ModuleType", None)
    importlib.import_module("structlog")
    del sys.modules["rich"]


def foreign_package() -> str | None:
    """What is wrong with where the packages come from; None if all are of this distribution."""
    try:
        version("task-agent")
    except PackageNotFoundError:
        return "task-agent is not installed here; `make serve` does that"
    ours = Path(__file__).parents[1]
    for name in ("domain", "adapters", "settings"):
        spec = importlib.util.find_spec(name)
        found = list((spec and spec.submodule_search_locations) or [])
        if found != [str(ours / name)]:
            return f"the package `{name}` comes from {found}, not from task-agent ({ours / name})"
    return None


if __name__ == "__main__":
    main()
