"""The process of a child: started, signalled, and seen to die. What it says is in `process.py`."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import Final, Self, cast

from adapters.executors.python_callable.prints import Prints

_PROGRAM: Final = "adapters.executors.python_callable.child"


class Life(asyncio.SubprocessProtocol):
    """Hears what a process prints, and of its end; whatever it has started ends with it."""

    def __init__(self) -> None:
        self.prints = Prints()
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.disconnected: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def begin(cls, descriptor: int) -> Self:
        """Start a child that speaks on this descriptor. Raises OSError."""
        _, life = await asyncio.get_running_loop().subprocess_exec(
            cls,
            *(sys.executable, "-P", "-X", "faulthandler", "-m", _PROGRAM, str(descriptor)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[descriptor],
            start_new_session=True,
        )
        return life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.SubprocessProtocol`."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._pid = self._transport.get_pid()

    def pipe_data_received(self, _: int, data: bytes) -> None:
        """See `asyncio.SubprocessProtocol`."""
        self.prints.feed(data)

    def process_exited(self) -> None:
        """See `asyncio.SubprocessProtocol`."""
        self.kill()
        self.exited.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        """See `asyncio.SubprocessProtocol`."""
        self.disconnected.set_result(None)

    def signal(self, number: signal.Signals) -> None:
        """Send it to the process alone."""
        if not self.exited.done():
            self._transport.send_signal(number)

    def kill(self) -> None:
        """Kill the process and its group, which is its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)

    def how_it_ended(self) -> str:
        """In words."""
        code = self._transport.get_returncode()
        if code is None:
            return "it does not answer"
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def close(self) -> None:
        """Let go of what is left of it, here."""
        self._transport.close()
