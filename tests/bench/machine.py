"""The machine that is measured on: one core for the server, another for the load."""

import os
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

_CORES = sorted(os.sched_getaffinity(0))
LOAD_CORE, SERVER_CORE = _CORES[0], _CORES[-1]
ALL_CORES = frozenset(_CORES)


def process_on(core: int) -> ProcessPoolExecutor:
    """A process of its own that runs functions on this core and gives back what they return."""
    return ProcessPoolExecutor(1, get_context("spawn"), os.sched_setaffinity, (0, {core}))


def cpu_seconds(pid: int) -> float:
    """What a process, anybody's, has used of the CPU, its threads included."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def describe(directory: Path) -> dict[str, str]:
    """What a reader must know of the machine; databases are written in `directory`."""
    shared = " (ONE CORE FOR BOTH: ratios are too kind)" if LOAD_CORE == SERVER_CORE else ""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": f"server on {SERVER_CORE}, load on {LOAD_CORE}{shared}",
        "file system": f"{_file_system(directory)}, a write with fsync takes {_fsync(directory)}",
    }


def _file_system(directory: Path) -> str:
    """The type of the mount that holds the directory; on `tmpfs` an fsync costs nothing."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(point, kind) for point, kind in mounts if directory.is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]))[1]


def _fsync(directory: Path) -> str:
    path, seconds = directory / "fsync", []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - began)
    path.unlink()
    return f"{statistics.median(seconds) * 1000:.2f} ms"
