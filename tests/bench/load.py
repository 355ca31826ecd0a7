"""The load: HTTP/1.1 clients on keep-alive connections, without pipelining.

It runs in a process and on a core of its own (see `machine.py`), so that it takes nothing from the
server that it measures. `Answers.busy` tells how much of that core it used: near 1, the load and
not the server set the pace. Instants are those of the wall clock, in seconds, so that they compare
with the time stamps of the service: all is on one machine.
"""

import asyncio
import re
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, takewhile
from typing import cast

import uvloop

CLIENTS = 64
_TASK_ID = re.compile(rb'"task_id": ?"([^"]+)"')
_HEAD = re.compile(rb"(?is)HTTP/1\.1 (\d)\d\d.*?\r\ncontent-length: *(\d+).*?\r\n\r\n")


@dataclass(frozen=True)
class Answers:
    """What came back, in order of arrival. `busy` is a share of one core, 0 … 1."""

    sent: list[float]
    received: list[float]
    bodies: list[bytes]
    busy: float

    @property
    def per_second(self) -> float:
        return len(self.sent) / (max(self.received) - min(self.sent))


def during(port: int, seconds: float, requests: Sequence[bytes], clients: int = CLIENTS) -> Answers:
    """Each client sends its next request when it has the answer to the last, for so long."""
    end = time.monotonic() + seconds
    going = takewhile(lambda _: time.monotonic() < end, cycle(requests))
    return uvloop.run(_closed(port, going, clients))


def each(port: int, requests: Sequence[bytes], clients: int = CLIENTS) -> Answers:
    """The same, until every request has been answered once."""
    return uvloop.run(_closed(port, requests, clients))


def paced(port: int, seconds: float, request: bytes, per_second: float) -> Answers:
    """Send at this pace, whether or not earlier requests are answered."""
    return uvloop.run(_paced(port, round(seconds * per_second), request, 1 / per_second))


def first_pieces(port: int, requests: Sequence[bytes], sign: bytes) -> Answers:
    """Each request on its own connection, one after the other, until its answer shows `sign`."""
    record = _Record()
    for request in requests:
        sent = time.time()
        record.add(sent, _until(port, request, sign))
    return record.answers()


def first_outputs(port: int, submits: Sequence[bytes]) -> Answers:
    """The same of tasks: each is submitted, and its events are read until one has output."""
    record = _Record()
    for submit in submits:
        sent = time.time()
        [task_id] = _TASK_ID.findall(_until(port, submit, b"}"))
        path = b"/api/v1/task/" + task_id + b"/events"
        stream = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
        record.add(sent, _until(port, stream, b"event: output"))
    return record.answers()


def streamed(port: int, requests: Sequence[bytes]) -> Answers:
    """All at once, each answer read until the server closes the connection."""
    return uvloop.run(_streamed(port, requests))


class Refused(Exception):
    """An answer that is not 2xx: a figure made of refusals would be none."""


class Connection(asyncio.Protocol):
    """One client: one request at a time on one connection."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[bytes] = self._loop.create_future()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = _HEAD.match(self._received)
        if head is None or len(self._received) < head.end() + int(head[2]):
            return
        if head[1] == b"2":
            self._answer.set_result(self._received[head.end() :])
        else:
            self._answer.set_exception(Refused(self._received[:1000].decode()))
        self._received = b""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server hung up"))

    def exchange(self, request: bytes) -> asyncio.Future[bytes]:
        """Send the request; gives the body of its answer."""
        self._answer = self._loop.create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self._answer.cancel()
        self._transport.close()


class _Record:
    """Collects what a run sends and gets."""

    def __init__(self) -> None:
        self._sent: list[float] = []
        self._received: list[float] = []
        self._bodies: list[bytes] = []
        self._began = time.monotonic(), time.process_time()

    def add(self, sent: float, body: bytes) -> None:
        self._received.append(time.time())
        self._sent.append(sent)
        self._bodies.append(body)

    def answers(self) -> Answers:
        wall, cpu = self._began
        busy = (time.process_time() - cpu) / (time.monotonic() - wall)
        return Answers(self._sent, self._received, self._bodies, busy)


def _until(port: int, request: bytes, sign: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        received = b""
        while sign not in received:
            piece = connection.recv(65_536)
            if not piece:
                raise Refused(received[:1000].decode())
            received += piece
        return received


async def _streamed(port: int, requests: Sequence[bytes]) -> Answers:
    record = _Record()

    async def read(request: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = time.time()
        writer.write(request)
        record.add(sent, await reader.read(-1))
        writer.close()

    await asyncio.gather(*map(read, requests))
    return record.answers()


async def _connections(port: int, number: int) -> list[Connection]:
    connect = asyncio.get_running_loop().create_connection
    return [(await connect(Connection, "127.0.0.1", port))[1] for _ in range(number)]


async def _closed(port: int, requests: Iterable[bytes], clients: int) -> Answers:
    connections, left = await _connections(port, clients), iter(requests)
    record = _Record()

    async def client(connection: Connection) -> None:
        for request in left:
            sent = time.time()
            record.add(sent, await connection.exchange(request))
        connection.close()

    await asyncio.gather(*map(client, connections))
    return record.answers()


async def _paced(port: int, number: int, request: bytes, interval: float) -> Answers:
    idle = asyncio.Queue[Connection]()  # in turn: uvicorn closes those that rest for 5 seconds
    for connection in await _connections(port, CLIENTS):
        idle.put_nowait(connection)
    record, began = _Record(), time.monotonic()

    async def send() -> None:
        sent = time.time()
        connection = await idle.get()
        record.add(sent, await connection.exchange(request))
        idle.put_nowait(connection)

    async with asyncio.TaskGroup() as sending:
        for index in range(number):
            await asyncio.sleep(began + index * interval - time.monotonic())
            sending.create_task(send())
    while not idle.empty():
        idle.get_nowait().close()
    return record.answers()
