"""What runs in a child process: one attempt after the other, on its main thread.

`python -m adapters.executors.python_callable.child DESCRIPTOR`, a socket on which `frames` are
spoken. It reads nothing while a function runs, so the service speaks by signals then: SIGUSR1 sets
the flag of the context, and ends a generator at its next piece; SIGKILL is for those who do not
listen. Whoever stops the whole service with SIGTERM or SIGINT does not mean the children: the
service decides when they end. It cannot leave them behind: Linux kills them when it dies, and
elsewhere they end when their function does.
"""

import contextlib
import ctypes
import inspect
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, NoReturn, TypeVar

import msgspec
from msgspec import Raw, Struct

from adapters.executors.python_callable.context import Context
from adapters.executors.python_callable.frames import (
    HEADER_BYTES,
    Attempt,
    Begun,
    End,
    Imported,
    Joined,
    Loaded,
    Logged,
    NotStorable,
    Progressed,
    Raised,
    Refused,
    Returned,
    Setup,
    Text,
    TooLarge,
    length_of,
    packed,
)
from adapters.executors.python_callable.outcome import (
    TextOutput,
    failure_of,
    result_of,
    shown,
    worded,
)
from adapters.executors.python_callable.target import NotUsable, Target, found, is_async
from domain.errors import ExecutorError, ExecutorFailed, ResultNotStorable, ResultTooLarge
from domain.inference import LogLine, Progress, encode_result

_DIES_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG of linux/prctl.h
_FIRST_TO_GO: Final = "1000"  # of oom_score_adj

Wanted = TypeVar("Wanted", Setup, Attempt)


class Connection:
    """The way to the service. Where there is none any more, the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._incoming: IO[bytes] = self._socket.makefile("rb")
        self._sending = threading.Lock()  # a function may speak from any of its threads

    def receive(self, kind: type[Wanted]) -> Wanted:
        """Wait for what the service wants next."""
        frame = self._read(length_of(self._read(HEADER_BYTES)))
        return msgspec.json.decode(frame, type=kind)

    def send(self, message: Struct) -> None:
        """Say it, however long the service takes to listen."""
        frame = packed(message)
        try:
            with self._sending:
                self._socket.sendall(frame)
        except OSError:
            os._exit(1)

    def _read(self, size: int) -> bytes:
        try:
            received = self._incoming.read(size)
        except OSError:
            received = b""
        if len(received) < size:
            os._exit(0)
        return received


class Child:
    """Runs the attempts that the service sends."""

    def __init__(self, connection: Connection, target: Target, loaded: Any) -> None:
        self._connection = connection
        self._target = target
        self._loaded = loaded
        self._context: Context | None = None
        signal.signal(signal.SIGUSR1, self._cancel)

    def work(self) -> NoReturn:
        """Run attempts until the service wants no more of them."""
        self._connection.send(Loaded())
        while True:
            self._run(self._connection.receive(Attempt))

    def _run(self, attempt: Attempt) -> None:
        self._connection.send(Begun())
        process = os.getpid()
        self._context = context = Context(
            task_id=attempt.task_id,
            attempt=attempt.attempt,
            model=attempt.model,
            loaded=self._loaded,
            say=self._say,
        )
        end = self._end_of(attempt, context)
        if os.getpid() != process:  # the function forked, and both came back
            os._exit(0)
        context.close()
        _flush()
        self._connection.send(end)

    def _end_of(self, attempt: Attempt, context: Context) -> End:
        try:
            given = self._target.call(attempt.input, attempt.options, context)
            if inspect.isgenerator(given):
                given = self._spoken(given, context, attempt.max_result_bytes)
                if given is None:
                    return Joined()
            return _returned(given, attempt.max_result_bytes)
        except ResultTooLarge:
            return TooLarge()
        except ResultNotStorable as error:
            return NotStorable(shown(str(error.__cause__ or error)))
        except BaseException as error:  # noqa: BLE001 - even one that would end the process
            if not isinstance(error, ExecutorError):
                traceback.print_exception(error)
            return _raised(failure_of(error))

    def _spoken(
        self, generator: Generator[Any, Any, Any], context: Context, max_result_bytes: int
    ) -> Any:
        """Send its pieces, and give what it returns."""
        output = TextOutput(max_result_bytes)
        with contextlib.closing(generator):
            while not context.cancelled:
                try:
                    piece = next(generator)
                except StopIteration as end:
                    return end.value
                self._connection.send(Text(output.take(piece)))
        raise ExecutorFailed("the attempt was cancelled")

    def _say(self, piece: Progress | LogLine) -> None:
        match piece:
            case Progress(fraction):
                self._connection.send(Progressed(fraction))
            case LogLine(message):
                self._connection.send(Logged(message))

    def _cancel(self, _: int, __: FrameType | None) -> None:
        if self._context is not None:
            self._context.cancel()


def main() -> None:
    """Be a child of the service at the other end of this socket."""
    connection = Connection(int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)  # not SIG_IGN, which programs it starts would inherit
    setup = connection.receive(Setup)
    _die_with(setup.service)
    _give_way(setup.max_memory_bytes)
    sys.path += [folder for folder in setup.import_path if folder not in sys.path]
    Child(connection, *_prepared(setup, connection)).work()


def _prepared(setup: Setup, connection: Connection) -> tuple[Target, Any]:
    """Import what the settings name, and load what it needs."""
    option = "target"
    try:
        target = Target(setup.target)
        option = "load"
        load = _load_of(setup, target)
    except NotUsable as error:
        connection.send(Refused(option, str(error)))
        sys.exit()
    connection.send(Imported(target.is_async))
    if target.is_async:
        sys.exit()
    try:
        loaded = load()
    except BaseException as error:  # noqa: BLE001 - even one that would end the process
        connection.send(Refused("load", f"load raised {worded(error)}"))
        sys.exit()
    _flush()
    return target, loaded


def _load_of(setup: Setup, target: Target) -> Callable[[], Any]:
    if setup.load is None:
        return lambda: None
    load = found(setup.load)
    if is_async(load) and not target.is_async:
        raise NotUsable("is an `async def`, and the target is not")
    return load


def _ignore(_: int, __: FrameType | None) -> None:
    """The service is told too, and decides."""


def _die_with(service: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != service:
        os._exit(0)


def _give_way(max_memory_bytes: int | None) -> None:
    """Be the one that dies where memory runs out, and take no more of it than allowed."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    if max_memory_bytes is not None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        with contextlib.suppress(ValueError):  # the machine allows less already
            resource.setrlimit(resource.RLIMIT_DATA, (max_memory_bytes, most))


def _returned(given: Any, max_result_bytes: int) -> Returned:
    result = result_of(given)
    return Returned(Raw(encode_result(result, max_result_bytes)), result.usage)


def _raised(error: ExecutorError) -> Raised:
    return Raised(error.code, shown(error.message), error.retryable, error.retry_after_seconds)


def _flush() -> None:
    """What was printed belongs to what ran until now."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the function may have closed or replaced it
            stream.flush()


if __name__ == "__main__":
    main()
