"""The edge on a real port, over each of our stores in turn, which fails when told to."""

import asyncio
import inspect
import json
import socket
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager
from http.client import HTTPResponse

import pytest
import structlog
import uvloop
from uuid_utils import uuid7

from adapters.clock import SystemClock
from domain.inference import Routes
from domain.ports import Completed, Failed, SubmitLimits, TaskQueue
from domain.retention import RetentionPolicy
from domain.service import Submission, SubmitDefaults, TaskService
from domain.task import TaskError, TaskStatus
from entrypoints.bootstrap import looking_out, open_service, store_of
from entrypoints.http.app import create_app
from entrypoints.http.server import Server
from entrypoints.http.waiting import Waiting
from entrypoints.metrics.page import Metrics
from entrypoints.readiness import Readiness
from settings.schema import (
    ExecutorSettings,
    InferenceSettings,
    SecuritySettings,
    ServerSettings,
    Settings,
    StoreSettings,
    WorkerSettings,
)

SUBMIT = "/api/v1/task/inference"
TIMEOUT = 30.0
STORES = ["memory", "sqlite", "postgres"]


def pytest_generate_tests(metafunc):
    """Run on every store; where any one tells as much, leave the others to `make torture`."""
    if "backend" in metafunc.fixturenames:
        first, *others = STORES
        is_enough = metafunc.definition.get_closest_marker("any_store")
        marks = [pytest.mark.torture] if is_enough else []
        stores = [first, *(pytest.param(name, marks=marks) for name in others)]
        metafunc.parametrize("backend", stores, scope="module")


class FaultyStore:
    """A store, with faults: `fault` is raised by every call, `hangs` lets none return.

    Nobody hears of anything when it `is_mute`. `backlog` is told in place of the real one. `asked`
    counts the calls by name.
    """

    def __init__(self, store):
        self._store = store
        self.fault = None
        self.hangs = False
        self.is_mute = False
        self.backlog: float | None = None
        self.asked: Counter[str] = Counter()

    def on_end(self, listener):
        return self._store.on_end(lambda ids: None if self.is_mute else listener(ids))

    def on_events(self, listener):
        return self._store.on_events(lambda ids: None if self.is_mute else listener(ids))

    def __getattr__(self, name):
        method = getattr(self._store, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def ask(*arguments):
            self.asked[name] += 1
            if self.hangs:
                await asyncio.Event().wait()
            if self.fault is not None:
                raise self.fault
            answer = await method(*arguments)
            return self.backlog or answer if name == "backlog_seconds" else answer

        return ask


class Reply:
    """An answer as it came."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json["code"]

    @property
    def paths(self):
        return [error["path"] for error in self.json["errors"]]


class Connection:
    """One connection, on which anything may be sent; what comes back may find little room."""

    def __init__(self, address, room_bytes=None):
        self.host = f"{address[0]}:{address[1]}"
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT)
        if room_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
        self.socket.connect(address)
        self._streamed: HTTPResponse | None = None

    def send(self, *pieces):
        for piece in pieces:
            self.socket.sendall(piece)

    def reply(self, method="GET"):
        response = HTTPResponse(self.socket, method=method)
        response.begin()
        return Reply(response)

    def head(self, method, path, headers):
        """A request's head; a header that is None is left out, a list is sent once for each."""
        everything = {"Host": self.host} | headers
        lines = [f"{method} {path} HTTP/1.1"]
        for name, values in everything.items():
            for value in values if isinstance(values, list) else [values]:
                lines += [] if value is None else [f"{name}: {value}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def begin(self, method, path, body=None, **headers):
        """Send a request, whose reply is read later."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            default = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            named = default | named
        self.send(self.head(method, path, named) + (body or b""))

    def ask(self, method, path, body=None, **headers):
        self.begin(method, path, body, **headers)
        return self.reply(method)

    def submit(self, body, **headers):
        return self.ask("POST", SUBMIT, body, **headers)

    def stream(self, reply, after="", **headers):
        """Begin to read the events of the task that this answer told of: the head is there."""
        self.begin("GET", f"{reply.headers['Location']}/events{after}", **headers)
        self._streamed = HTTPResponse(self.socket, method="GET")
        self._streamed.begin()
        return self._streamed

    def is_closed_by_the_service(self):
        return self.socket.recv(1) == b""

    def close(self):
        if self._streamed is not None:
            self._streamed.close()
        self.socket.close()


class Edge:
    """The edge in a thread of its own, on a port of its own."""

    queue: TaskQueue

    def __init__(self, opened):
        self._opened = opened
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()[:2]
        self._answers = threading.Event()
        self._connections: list[Connection] = []
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()))

    async def _serve(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._opened as (app, parts):
            self.__dict__.update(parts)
            server = Server(app)
            serving = asyncio.create_task(server.serve(sockets=[self._listener]))
            await server.answers.wait()
            self._answers.set()
            await self._stop.wait()
            await server.stop(serving)

    def __enter__(self):
        self._thread.start()
        assert self._answers.wait(TIMEOUT)
        self.connection = self.connect()
        return self

    def __exit__(self, *_):
        for connection in self._connections:
            connection.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT)

    def connect(self, room_bytes=None):
        self._connections.append(Connection(self.address, room_bytes))
        return self._connections[-1]

    def ask(self, method, path, body=None, **headers):
        return self.connection.ask(method, path, body, **headers)

    def submit(self, body, **headers):
        return self.connection.submit(body, **headers)

    def do(self, coroutine):
        """Run a coroutine where the store lives."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT)

    @staticmethod
    def submission(text):
        return Submission(input=json.dumps(text).encode())

    def claim(self, reply):
        """The task that this answer told of, as a worker gets it."""
        claims = self.do(self.queue.claim("worker", {"echo": 1000}, 30.0))
        return next(claim for claim in claims if claim.task.id == reply.json["task_id"])

    def complete(self, reply, result=b'{"output": "x"}', usage=None):
        """Let a worker complete the task that this answer told of with this JSON text."""
        self.settle(Completed(self.claim(reply).fence, result, usage), TaskStatus.COMPLETED)

    def fail(self, reply):
        """Let a worker fail it."""
        error = TaskError("executor_error", "it broke", retryable=True)
        self.settle(Failed(self.claim(reply).fence, error), TaskStatus.FAILED)

    def settle(self, outcome, status):
        assert self.do(self.queue.settle([outcome])) == [status]

    def call(self, function, *arguments):
        """Call a function where the store lives."""

        async def called():
            return function(*arguments)

        return self.do(called())


@asynccontextmanager
async def _edge(settings):
    limits = SubmitLimits(settings.inference.max_pending_tasks, RetentionPolicy(0, 0))
    defaults = SubmitDefaults(settings.inference.timeout_seconds, settings.inference.max_attempts)
    clock = SystemClock()
    async with store_of(settings.store, {}, clock) as opened:
        store = FaultyStore(opened)
        routes = Routes({"llama-3": "llama"}, "echo")
        readiness = Readiness(clock.monotonic)
        readiness.clear("start")
        metrics = Metrics(store, readiness)
        tasks = TaskService(metrics.store, routes, limits, defaults, lambda: str(uuid7()))
        parts = {"queue": opened, "store": store, "tasks": tasks, "readiness": readiness}
        async with looking_out(metrics.store, settings, readiness) as lookout:
            parts |= {"lookout": lookout, "waiting": Waiting(tasks, lookout), "metrics": metrics}
            yield create_app(settings, tasks, lookout, readiness, metrics), parts


@asynccontextmanager
async def _whole(settings):
    async with open_service(settings, {}) as service:
        parts = (service.tasks, service.lookout, service.readiness, service.metrics)
        app = create_app(settings, *parts)
        yield app, {"service": service}


@pytest.fixture(scope="module")
def new_store(backend, request, tmp_path_factory):
    """Gives the settings of an empty store: of another one at each call."""
    if backend == "memory":
        return lambda: StoreSettings(backend="memory")
    if backend == "sqlite":
        return lambda: StoreSettings(
            backend="sqlite",
            path=str(tmp_path_factory.mktemp("store") / "tasks.db"),
            durability="normal",
            min_free_bytes=0,
        )
    new_schema = request.getfixturevalue("new_schema")
    return lambda: StoreSettings(backend="postgres", dsn=new_schema())


def settings_of(store, server=None, inference=None, security=None, worker=None):
    return Settings(
        server=ServerSettings(**(server or {})),
        inference=InferenceSettings(**(inference or {})),
        security=SecuritySettings(**(security or {})),
        worker=WorkerSettings(**(worker or {})),
        store=store,
        executors={"echo": ExecutorSettings(kind="echo")},
    )


@pytest.fixture(scope="module")
def edge(new_store):
    """One edge for all the tests of a module; who needs it empty or otherwise makes one."""
    with Edge(_edge(settings_of(new_store()))) as edge:
        yield edge


@pytest.fixture
def make_edge(new_store):
    """An edge with these settings: `make_edge(server={...}, inference={...}, security={...})`."""
    opened = []

    def make(**sections):
        edge = Edge(_edge(settings_of(new_store(), **sections)))
        opened.append(edge)
        return edge.__enter__()

    yield make
    for edge in opened:
        edge.__exit__()


@pytest.fixture
def two_nodes(new_schema):
    """Two edges on one PostgreSQL."""
    settings = settings_of(StoreSettings(backend="postgres", dsn=new_schema()))
    with Edge(_edge(settings)) as one, Edge(_edge(settings)) as other:
        yield [one, other]


@pytest.fixture(scope="module")
def service(new_store):
    """The edge with a worker and the echo executor behind it."""
    with Edge(_whole(settings_of(new_store()))) as edge:
        yield edge


@pytest.fixture
def own_service(new_store):
    """The same for one test, which may stop it."""
    with Edge(_whole(settings_of(new_store()))) as edge:
        yield edge


@pytest.fixture
def eventually():
    """Call until the answer is true, and give it; fail after half a minute."""

    def wait(condition):
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.01)
        raise AssertionError("it did not come true in time")

    return wait


@pytest.fixture(autouse=True)
def logged():
    """The events that are logged meanwhile."""
    with structlog.testing.capture_logs() as events:
        yield events
