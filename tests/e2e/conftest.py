"""The service as a real process, and the words in which the tests talk to it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPMessage
from itertools import count
from pathlib import Path
from random import Random
from typing import IO, Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import pytest

T = TypeVar("T")

START_SECONDS = 60  # a busy machine; how fast it is, `make bench` tells
ANSWER_SECONDS = 20
PAUSE_SECONDS = 0.02
LOAD_PAUSE_SECONDS = 0.02  # of each client between two tasks


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

    `command` is what `task-agent` is told to run: `serve`, `serve --no-worker` or `worker`.
    Settings are written `inference__max_concurrent_tasks=4`, as in the environment variables.
    Any free port is taken, a new one at each start.
    """

    def __init__(
        self, command: str, directory: Path, environ: dict[str, str], settings: dict[str, Any]
    ) -> None:
        self.command = command
        self.directory = directory
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.ready_at: datetime | None = None
        self.lines: list[str] = []
        self._environ = environ
        self._ready = threading.Event()

    # --- the process -------------------------------------------------------------------------

    def launch(self, command: str | None = None) -> Self:
        """Start a process of this service, and do not wait for anything."""
        self.lines, self._ready = [], threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "entrypoints", *(command or self.command).split()],
            cwd=self.directory,
            env=self._environ | as_variables(self.settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        reading = (self.process.stderr, self.lines, self._ready)
        self._reader = threading.Thread(target=self._read_log, args=reading, daemon=True)
        self._reader.start()
        return self

    def start(self) -> Self:
        """Start the process, and wait for `service_ready`, or `worker_ready`."""
        return self.launch().until_ready()

    def until_ready(self) -> Self:
        """Wait for the end of the start."""
        poll(lambda: self._ready.is_set() or self._ended(), START_SECONDS, "ready")
        assert self._ready.is_set(), f"the service did not start:\n{self.log()}"
        return self

    def failed_start(self, code: int, within: float) -> str:
        """The message of a start that ends with this exit code."""
        assert self.launch().exit_code(within) == code, self.log()
        assert "Traceback" not in self.log()
        assert not self._ready.is_set()
        return self.log()

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
        """Wait for the end of the process, and of its log."""
        assert self.process is not None
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within:g} seconds:\n{self.log()}") from None
        self._reader.join()
        return code

    def _ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    # --- its log -----------------------------------------------------------------------------

    def log(self) -> str:
        return "".join(self.lines)

    def _read_log(self, stream: IO[bytes], lines: list[str], ready: threading.Event) -> None:
        for line in stream:
            lines.append(line.decode())
            if b'"service_ready"' in line or b'"worker_ready"' in line:
                record = json.loads(line)
                self.url = record["url"] or ""
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

    @property
    def host(self) -> str:
        """The address, as `HTTPConnection` takes it."""
        return urlsplit(self.url).netloc

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


class Load:
    """Clients that submit quick tasks, service or no service, and remember what they saw."""

    def __init__(self, service: Service, seed: int, clients: int = 2) -> None:
        print(f"seed {seed}")
        self.accepted: dict[str, str] = {}  # task and input
        self.refused: list[Answer] = []
        self.ended: dict[str, dict[str, Any]] = {}
        self._service = service
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._submit_on_and_on, args=[Random(f"{seed}/{client}")])
            for client in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def submit(self, text: str, delay_seconds: float) -> str | None:
        """Submit a task, and give its id if it was accepted."""
        answer = self._service.post(text, {"delay_seconds": delay_seconds})
        if answer.status != 202:
            self.refused.append(answer)
            return None
        task_id: str = answer.json["task_id"]
        self.accepted[task_id] = text
        return task_id

    def look(self, task_id: str) -> Any:
        """The task, after a check that nothing changed if it had ended when it was last seen.

        None where the service does not tell.
        """
        answer = self._service.request("GET", f"/api/v1/task/{task_id}")
        if answer.status != 200:
            self.refused.append(answer)
            return None
        task = answer.json
        assert self.ended.get(task_id) in (None, task)
        if task["done"]:
            self.ended[task_id] = task
        return task

    def are_done(self, task_ids: Iterable[str]) -> bool:
        tasks = [self.look(task_id) for task_id in task_ids]
        return all(task and task["done"] for task in tasks)

    def go_on(self, number: int) -> None:
        """Wait until so many more tasks are accepted."""
        enough = len(self.accepted) + number
        poll(lambda: len(self.accepted) >= enough, 30, "the load goes on")

    def until_all_complete(self) -> int:
        """Wait for the end of every accepted task, and give the number of starts beyond one each.

        Each result must be right, and none that was seen may change.
        """
        for task_id, text in self.accepted.items():
            poll(partial(self.are_done, [task_id]), 60, f"{task_id} ends")
            task = self.ended[task_id]
            assert task["status"] == "completed", task
            assert task["result"] == {"output": f"Processed input: {text}"}
        return sum(task["attempt"] - 1 for task in self.ended.values())

    def _submit_on_and_on(self, random: Random) -> None:
        while not self._stop.wait(LOAD_PAUSE_SECONDS):
            try:
                task_id = self.submit(f"{random.random()}", random.choice([0, 0.01, 0.05]))
                if task_id and random.random() < 0.5:
                    self.look(task_id)
            except (OSError, HTTPException):
                continue  # killed meanwhile: whether the task was taken is anybody's guess


class CommandLine:
    """`task-agent` as its users run it, told where a service is."""

    def __init__(self, url: str, directory: Path) -> None:
        self._environ = clean_environment() | {"TASK_AGENT_URL": url}
        self._environ.pop("PYTHONUNBUFFERED", None)  # what is written at once is for it to say
        self._directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
        """Start a command, whose output can be read as it comes."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-m", "entrypoints", *arguments],
            **{"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe} | streams,
            cwd=self._directory,
            env=self._environ,
            text=True,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """Leave nothing running."""
        for process in self._started:
            process.kill()
            process.communicate()


def as_variables(settings: dict[str, Any]) -> dict[str, str]:
    return {
        f"TASK_AGENT_{key.upper()}": value if isinstance(value, str) else json.dumps(value)
        for key, value in settings.items()
    }


@pytest.fixture(name="eventually")
def provide_poll() -> Callable[[Callable[[], T], float, str], T]:
    """See `poll`."""
    return poll


@pytest.fixture(name="load_on")
def provide_load() -> type[Load]:
    """See `Load`."""
    return Load


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Make services that are not started yet, each in a directory of its own unless told which."""
    services: list[Service] = []
    numbers = count(1)

    def make(
        directory: Path | None = None,
        environ: dict[str, str] | None = None,
        command: str = "serve",
        **settings: Any,
    ) -> Service:
        directory = directory or tmp_path / f"service-{next(numbers)}"
        directory.mkdir(exist_ok=True)
        environ = clean_environment() | (environ or {})
        services.append(Service(command, directory, environ, {"server__port": 0} | settings))
        return services[-1]

    yield make
    for service in services:
        end(service)


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that runs for all tests of a module."""
    directory = tmp_path_factory.mktemp("service")
    service = Service("serve", directory, clean_environment(), {"server__port": 0})
    yield service.start()
    end(service)


@pytest.fixture
def command_line(tmp_path: Path) -> Iterator[Callable[[str], CommandLine]]:
    """Command lines for services at these URLs."""
    made: list[CommandLine] = []

    def make(url: str) -> CommandLine:
        made.append(CommandLine(url, tmp_path))
        return made[-1]

    yield make
    for each in made:
        each.end()


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
