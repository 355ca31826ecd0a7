"""Commands on a real service, and on a made-up one that answers whatever a test wants."""

import os
import pty
import threading
from collections import defaultdict
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from entrypoints.cli import main


@pytest.fixture
def invoke(monkeypatch):
    """Run a command in this process on the service at this URL."""
    for name in ("TASK_AGENT_URL", "TASK_AGENT_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def invoke(url, *arguments, api_key=None, **keywords):
        environ = {"TASK_AGENT_URL": url, "TASK_AGENT_API_KEY": api_key}
        return CliRunner().invoke(main, arguments, env=environ, **keywords)

    return invoke


@pytest.fixture
def run(invoke, shared_service):
    """Run a command on the service that the module shares."""

    def run(*arguments, **keywords):
        return invoke(shared_service.url, *arguments, **keywords)

    return run


@pytest.fixture
def seen_by(command_line):
    """What a person sees of a command on standard error, and what is on standard output."""

    def seen_by(url, *arguments):
        ours, theirs = pty.openpty()
        process = command_line(url).start(*arguments, stderr=theirs)
        os.close(theirs)
        pieces = []
        with suppress(OSError):  # which Linux raises when nobody writes any more
            while piece := os.read(ours, 65_536):
                pieces.append(piece)
        os.close(ours)
        return b"".join(pieces).decode(), process.communicate(timeout=20)[0]

    return seen_by


class MadeUpService:
    """Answers each request with what is next for it, the last for ever, and closes.

    `asked` are the requests: method, path with query, and body.
    """

    def __init__(self):
        self._answers: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.asked: list[tuple[str, str, bytes]] = []
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                ours.asked.append((self.command, self.path, body))
                self.wfile.write(ours.answer_to(self.command, self.path))

            do_GET = do_POST = answer  # noqa: N815 - names of the standard library

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def will_answer(self, method, path, body, status=200, **headers):
        head = f"HTTP/1.1 {status} Any\r\nConnection: close\r\n"
        head += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self._answers[method, f"/api/v1/task/{path}"].append((head + "\r\n" + body).encode())

    def answer_to(self, method, path):
        answers = self._answers[method, path.partition("?")[0]]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def made_up():
    made_up = MadeUpService()
    yield made_up
    made_up.close()
