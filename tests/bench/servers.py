"""Starts what is measured: the floors, and the service as its users start it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from machine import ALL_CORES, SERVER_CORE, cpu_seconds

HERE = Path(__file__).parent
_SERVER_CORES = frozenset({SERVER_CORE})
SLOTS = 8
_START_SECONDS = 300
_TASK_AGENT = (sys.executable, "-m", "entrypoints")
_SERVE = (*_TASK_AGENT, "serve")
_STRACE = ("strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync,fdatasync", "-o")


class NotStarted(Exception):
    """A server that ended, or did not answer in time."""


@dataclass(frozen=True)
class Server:
    """A server that answers. What it writes goes to `directory`."""

    port: int
    process: subprocess.Popen[bytes]
    directory: Path

    def end_of_log(self) -> str:
        """The last of what it wrote to standard error."""
        return _end_of_log(self.directory)

    def resident_megabytes(self) -> float:
        """Physical memory of the process now, in 10^6 bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE") / 1e6

    def cpu_seconds(self) -> float:
        """What the process has used of the CPU."""
        return cpu_seconds(self.process.pid)

    def fsyncs(self) -> int:
        """How often a `traced` server has asked for a flush to the disk."""
        return (self.directory / "fsyncs").read_text().count("sync(")


@contextmanager
def floor(app: str, directory: Path, cores: AbstractSet[int] = _SERVER_CORES) -> Iterator[Server]:
    """One of `floors/`, under uvicorn with the flags that the service uses."""
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", f"floors.{app}", "--app-dir", str(HERE)]
    command += ["--port", str(port), "--http", "httptools", "--loop", "uvloop", "--ws", "none"]
    command += ["--lifespan", "off", "--no-proxy-headers", "--no-server-header"]
    command += ["--no-access-log", "--log-level", "warning"]
    with _process(command, {}, directory, cores) as process:
        _wait(process, directory, lambda: _answers(port))
        yield Server(port, process, directory)


@contextmanager
def service(
    directory: Path,
    settings: Mapping[str, str],
    *options: str,
    traced: bool = False,
    cores: AbstractSet[int] = _SERVER_CORES,
    code: Path | None = None,
) -> Iterator[Server]:
    """The service, told by environment variables (`settings`, without their prefix).

    `code` is the directory of another version of it; None: this one.
    """
    port = _free_port()
    trace = [*_STRACE, str(directory / "fsyncs")] if traced else []
    environ = _environ({**settings, "SERVER__PORT": str(port)})
    if code is not None:
        environ["PYTHONPATH"] = os.pathsep.join([str(code), str(HERE)])
    with _process([*trace, *_SERVE, *options], environ, directory, cores) as process:
        _wait(process, directory, lambda: _answers(port))
        yield Server(port, process, directory)


@contextmanager
def worker(directory: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """A worker of its own, on any core; its port answers probes alone."""
    port = _free_port()
    environ = _environ({**settings, "WORKER__PORT": str(port)})
    with _process([*_TASK_AGENT, "worker"], environ, directory, ALL_CORES) as process:
        _wait(process, directory, lambda: _answers(port))
        yield Server(port, process, directory)


def seconds_to_ready(directory: Path, settings: Mapping[str, str]) -> float:
    """From the start of the service's process to its log line `service_ready`."""
    environ, log = _environ({**settings, "SERVER__PORT": "0"}), directory / "stderr"
    began = time.monotonic()
    with _process(_SERVE, environ, directory) as process:
        _wait(process, directory, lambda: b"service_ready" in log.read_bytes())
        return time.monotonic() - began


def _environ(settings: Mapping[str, str]) -> dict[str, str]:
    """Limits on stored tasks are on, and so high that they refuse and remove nothing."""
    limits = {
        "INFERENCE__MAX_CONCURRENT_TASKS": str(SLOTS),
        "INFERENCE__MAX_TASKS_COUNT": "100000000",
        "INFERENCE__MAX_PENDING_TASKS": "10000000",
    }
    asked = {f"TASK_AGENT_{key}": value for key, value in (limits | dict(settings)).items()}
    return {**asked, "ENV": "local", "DEV_MODE": "false", "PYTHONPATH": str(HERE)}


@contextmanager
def _process(
    command: Sequence[str],
    environ: Mapping[str, str],
    directory: Path,
    cores: AbstractSet[int] = _SERVER_CORES,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on these cores, killed in the end: what it holds is thrown away."""
    with (directory / "stderr").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **environ},
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], directory: Path, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise NotStarted(_end_of_log(directory))
        time.sleep(0.002)


def _answers(port: int) -> bool:
    """Whether it is ready. Floors know no `/readyz`: for them any answer will do.

    The service listens before it opens its store, so a connection may wait for its answer.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status != 503
    except (ConnectionError, TimeoutError):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_of_log(directory: Path) -> str:
    return (directory / "stderr").read_text()[-4000:]
