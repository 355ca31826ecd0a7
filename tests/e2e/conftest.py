"""The service as a real process, and the words in which the tests talk to it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.client import HTTPConnection, HTTPMessage
from itertools import count
from pathlib import Path
from typing import IO, Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import pytest

T = TypeVar("T")

START_SECONDS = 60  # a busy machine; how fast it is, `make bench` tells
ANSWER_SECONDS = 20
PAUSE_SECONDS = 0.02


def poll(probe: Callable[[], T], within: float, what: str) -> T:
    """The first answer of `probe` that is true; fails when there is none `within` seconds."""
    deadline = time.monotonic() + within
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"not within {within:g} seconds: {what}"
        time.sleep(PAUSE_SECONDS)
    return answer


class Answer(NamedTuple):
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Service:
    """One service and its directory. It may be started again after its end, on the same data.

    Settings are written `inference__max_concurrent_tasks=4`, as in the environment variables.
    Any free port is taken, a new one at each start.
    """

    def __init__(self, directory: Path, environ: dict[str, str], settings: dict[str, Any]) -> None:
        self.directory = directory
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.ready_at: datetime | None = None
        self.lines: list[str] = []
        self._environ = environ
        self._ready = threading.Event()

    # --- the process -------------------------------------------------------------------------

    def launch(self, command: str = "serve") -> Self:
        """Start a process of this service, and do not wait for anything."""
        self.lines, self._ready = [], threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "entrypoints", command],
            cwd=self.directory,
            env=self._environ | as_variables(self.settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        reading = (self.process.stderr, self.lines, self._ready)
        threading.Thread(target=self._read_log, args=reading, daemon=True).start()
        return self

    def start(self) -> Self:
        """Start the process, and wait for `service_ready`."""
        self.launch()
        poll(lambda: self._ready.is_set() or self._ended(), START_SECONDS, "service_ready")
        assert self._ready.is_set(), f"the service did not start:\n{self.log()}"
        return self

    def restart(self) -> Self:
        """Start again after the end of the process."""
        assert self._ended(), "the service still runs"
        return self.start()

    def kill(self) -> None:
        """`kill -9`."""
        self.signal(signal.SIGKILL)
        self.exit_code(within=5)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def exit_code(self, within: float) -> int:
        """Wait for the end of the process."""
        assert self.process is not None
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within:g} seconds:\n{self.log()}") from None

    def _ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    # --- its log -----------------------------------------------------------------------------

    def log(self) -> str:
        return "".join(self.lines)

    def _read_log(self, stream: IO[bytes], lines: list[str], ready: threading.Event) -> None:
        for line in stream:
            lines.append(line.decode())
            if b'"service_ready"' in line:
                record = json.loads(line)
                self.url = record["url"]
                self.ready_at = datetime.fromisoformat(record["timestamp"])
                ready.set()
        stream.close()

    # --- its clients -------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        connection = HTTPConnection(*self.address, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, task_input: Any, options: dict[str, Any], **fields: Any) -> Answer:
        """Submit, whatever the answer may be."""
        body = json.dumps({"input": task_input, "options": options, **fields}).encode()
        path = "/api/v1/task/inference"
        return self.request("POST", path, body, **{"Content-Type": "application/json"})

    def submit(self, task_input: Any, options: dict[str, Any], **fields: Any) -> str:
        """Submit, and give the id of the accepted task."""
        answer = self.post(task_input, options, **fields)
        assert answer.status == 202, answer
        task_id: str = answer.json["task_id"]
        return task_id

    def task(self, task_id: str) -> dict[str, Any]:
        answer = self.request("GET", f"/api/v1/task/{task_id}")
        assert answer.status == 200, answer
        task: dict[str, Any] = answer.json
        return task

    def until_running(
        self, task_id: str, within: float = 10, after_attempt: int = 0
    ) -> dict[str, Any]:
        """Wait for a task to run, in a later attempt than this."""

        def running() -> dict[str, Any] | None:
            task = self.task(task_id)
            assert not task["done"], task
            return task if task["started_at"] and task["attempt"] > after_attempt else None

        task = poll(running, within, f"task {task_id} runs")
        assert task is not None
        return task

    def until_done(self, task_id: str, within: float = 20) -> dict[str, Any]:
        """Wait for a task to end."""

        def done() -> dict[str, Any] | None:
            task = self.task(task_id)
            return task if task["done"] else None

        task = poll(done, within, f"task {task_id} ends")
        assert task is not None
        return task


def as_variables(settings: dict[str, Any]) -> dict[str, str]:
    return {
        f"TASK_AGENT_{key.upper()}": value if isinstance(value, str) else json.dumps(value)
        for key, value in settings.items()
    }


@pytest.fixture(name="eventually")
def provide_poll() -> Callable[[Callable[[], T], float, str], T]:
    """See `poll`."""
    return poll


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Make services that are not started yet, each in a directory of its own unless told which."""
    services: list[Service] = []
    numbers = count(1)

    def make(
        directory: Path | None = None, environ: dict[str, str] | None = None, **settings: Any
    ) -> Service:
        directory = directory or tmp_path / f"service-{next(numbers)}"
        directory.mkdir(exist_ok=True)
        settings = {"server__port": 0} | settings
        services.append(Service(directory, clean_environment() | (environ or {}), settings))
        return services[-1]

    yield make
    for service in services:
        end(service)


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that would configure a service."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TASK_AGENT_")}
    kept.pop("ENV", None)
    return kept | {"DEV_MODE": "false"}


def end(service: Service) -> None:
    if service.process is None:
        return
    service.process.kill()
    service.process.wait()
    print(f"--- the log in {service.directory}, without its access lines")
    print("".join(line for line in service.lines if '"event":"request"' not in line))
