"""The service over HTTP: what the commands ask of it, how it says no, and how long they bear it."""

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from math import ceil
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
import click
import msgspec
from msgspec import Struct

from adapters.upstream.event_stream import EventStreamDecoder
from entrypoints.client.exit_codes import ExitCode, Unusable
from entrypoints.http.schemas import IDEMPOTENCY_KEY, Fault

LONGEST_WAIT_SECONDS: Final = 60
"""What one request may wait for the end of a task."""
_CONNECT_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 30
_SILENCE_SECONDS: Final = 45  # of a stream, which has a comment every 15
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 2.0
_MAX_EVENT_BYTES: Final = 1 << 30
_NO_HEADERS: Final[Mapping[str, str]] = {}

TOO_MANY_REQUESTS: Final = 429
_FIRST_THAT_IS_NO_ANSWER: Final = 300
_FAULTS_OF_REQUESTS: Final = range(400, 500)
_PASSES: Final = {TOO_MANY_REQUESTS, 502, 503, 504}
_NOT_THE_REQUEST: Final = {401, 403, TOO_MANY_REQUESTS}

Task = dict[str, Any]


class Reason(Struct, frozen=True):
    """Why the service said no: the part of its problem document that is for people."""

    code: str
    detail: str
    errors: list[Fault] = []

    def sentence(self) -> str:
        """All of it on one line."""
        faults = "; ".join(f"{fault.path or 'body'}: {fault.message}" for fault in self.errors)
        return f"{self.code}: {self.detail}" + (f" {faults}" if faults else "")


class Refused(click.ClickException):
    """The service finds fault with what it was asked."""

    exit_code = ExitCode.WRONG_USE

    def __init__(self, status: int, reason: Reason) -> None:
        super().__init__(reason.sentence())
        self.status = status
        self.reason = reason


class Unavailable(Unusable):
    """The service does not answer, or does not serve. `may_pass`: it may do so in a while.

    `status` is that of its answer, None if there was none.
    """

    def __init__(
        self,
        message: str,
        *,
        may_pass: bool,
        status: int | None = None,
        retry_after_seconds: float = 0,
    ) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class Event(Struct, frozen=True):
    """What happened to a task, with its number. `data` is JSON."""

    number: int
    kind: str
    data: bytes


class Patience:
    """How long to go on asking a service that does not answer, or says no for now."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._now = asyncio.get_running_loop().time
        self.renew()

    def renew(self) -> None:
        """Forget what was borne: it has answered."""
        self._ends_at: float | None = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    async def bear(self, fault: Unavailable) -> None:
        """Pause until it is time to ask again. Raises the fault if it is not to be borne."""
        if self._ends_at is None:
            self._ends_at = self._now() + self._seconds
        if not fault.may_pass or self._now() >= self._ends_at:
            raise fault
        await asyncio.sleep(max(self._pause_seconds, fault.retry_after_seconds))
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)


class Service:
    """A service at this URL (no slash at its end), asked with this API key.

    What fails in a way that may pass is asked again for `patience_seconds`. A service that has not
    answered yet is not waited for.
    """

    def __init__(self, url: str, api_key: str | None, patience_seconds: float) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._patience_seconds = patience_seconds
        self._has_answered = False
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def patience(self) -> Patience:
        """As much of it as one question deserves."""
        return Patience(self._patience_seconds)

    async def submit(self, body: bytes, key: str, wait_seconds: int = 0) -> Task:
        """Submit a task, at most once under this key: its id and status, or all of it if it ended.

        It is waited for so long.
        """
        headers = {"content-type": "application/json", IDEMPOTENCY_KEY: key}
        return await self._ask(
            "POST", "/task/inference", body=body, headers=headers, wait_seconds=wait_seconds
        )

    async def task(self, task_id: str, wait_seconds: int = 0) -> Task:
        """The task, when it has ended or so much time has passed."""
        return await self._ask("GET", _path(task_id), wait_seconds=wait_seconds)

    async def task_within(self, task_id: str, seconds: int) -> Task:
        """The task, when it has ended or so much time has passed, however much that is."""
        now = asyncio.get_running_loop().time
        ends_at = now() + seconds
        task = await self.task(task_id, min(seconds, LONGEST_WAIT_SECONDS))
        while not task["done"] and (left := ceil(ends_at - now())) > 0:
            task = await self.task(task_id, min(left, LONGEST_WAIT_SECONDS))
        return task

    async def until_done(self, task_id: str) -> Task:
        """The task, when it has ended."""
        while not (task := await self.task(task_id, LONGEST_WAIT_SECONDS))["done"]:
            pass
        return task

    async def cancel(self, task_id: str) -> Task:
        """The task, with the wish that nothing comes of it."""
        return await self._ask("POST", f"{_path(task_id)}/cancel")

    async def retry(self, task_id: str) -> Task:
        """A new task like this one. Asked once only: nobody knows whether a lost answer was yes."""
        return await self._ask_once("POST", f"{_path(task_id)}/retry")

    async def queue(self) -> dict[str, Any]:
        """What waits and what runs."""
        return await self._ask("GET", "/queue")

    async def tasks(self, filters: list[tuple[str, str]], limit: int) -> AsyncGenerator[Task, None]:
        """The newest tasks that pass these filters, at most so many."""
        cursor = None
        while limit > 0:
            query = [*filters, ("limit", str(min(limit, 100)))]
            query += [("cursor", cursor)] if cursor else []
            page = await self._ask("GET", "/task", query=query)
            for task in page["data"]:
                yield task
            limit -= len(page["data"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    @asynccontextmanager
    async def events(self, task_id: str, after: int) -> AsyncIterator[AsyncGenerator[Event, None]]:
        """The events behind this number, until the answer ends. Asked once."""
        path, query = f"{_path(task_id)}/events", [("after", str(after))]
        async with (
            self._answer("GET", path, query=query, silence=_SILENCE_SECONDS) as response,
            aclosing(self._events_in(response)) as events,
        ):
            yield events

    async def _events_in(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Event, None]:
        decoder = EventStreamDecoder(_MAX_EVENT_BYTES)
        while received := await self._next_bytes(response):
            for data in decoder.feed(received):
                yield Event(int(decoder.last_id), decoder.name.decode(), data)

    async def _next_bytes(self, response: aiohttp.ClientResponse) -> bytes:
        with self._faults_named():
            return await response.content.readany()

    async def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """The answer to this request, in the end."""
        patience = self.patience()
        while True:
            try:
                return await self._ask_once(method, path, **request)
            except Unavailable as fault:
                await patience.bear(fault)

    async def _ask_once(
        self,
        method: str,
        path: str,
        *,
        wait_seconds: int = 0,
        headers: Mapping[str, str] = _NO_HEADERS,
        **request: Any,
    ) -> dict[str, Any]:
        if wait_seconds:
            headers = {**headers, "prefer": f"wait={wait_seconds}"}
        silence = wait_seconds + _ANSWER_SECONDS
        async with self._answer(
            method, path, headers=headers, silence=silence, **request
        ) as response:
            with self._faults_named():
                text = await response.read()
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError:
            raise Unusable(f"what answers at {self._url} is not this service") from None

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        query: list[tuple[str, str]] | None = None,
        silence: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The head of the answer that says yes, and a way to read on."""
        with self._faults_named():
            response = await self._session.request(
                method,
                f"{self._url}/api/v1{path}",
                data=None if body is None else io.BytesIO(body),
                headers=headers,
                params=query,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=silence),
            )
        self._has_answered = True
        async with response:
            if response.status >= _FIRST_THAT_IS_NO_ANSWER:
                with self._faults_named():
                    raise _refusal(response, await response.read())
            yield response

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientError, OSError) as error:
            fault = getattr(error, "strerror", None) or str(error) or type(error).__name__
            message = f"no answer from {self._url}: {fault}"
            raise Unavailable(message, may_pass=self._has_answered) from error


def _path(task_id: str) -> str:
    return f"/task/{quote(task_id, safe='')}"


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> Refused | Unavailable:
    status = response.status
    try:
        reason = msgspec.json.decode(body, type=Reason)
    except msgspec.DecodeError:
        phrase = response.reason or "no reason"
        reason = Reason(f"http_{status}", f"{response.url} answered so, and gave {phrase!r}.")
    if status in _FAULTS_OF_REQUESTS and status not in _NOT_THE_REQUEST:
        return Refused(status, reason)
    seconds = response.headers.get("Retry-After", "")
    return Unavailable(
        reason.sentence(),
        may_pass=status in _PASSES,
        status=status,
        retry_after_seconds=min(int(seconds), 60) if seconds.isdecimal() else 0,
    )
