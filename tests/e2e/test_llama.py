"""The service with a real llama.cpp server behind it, which dies and comes back."""

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest

PROGRAM = Path(__file__).parents[1] / "llama_server.py"
LONG_TOKENS = 1_000  # a second of work


class Backend:
    """A llama.cpp server that can be killed, and started again on its port."""

    def __init__(self, directory):
        self._directory = directory
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._running = ExitStack()

    def start(self):
        command = [sys.executable, str(PROGRAM)]
        command += ["--directory", str(self._directory), "--port", str(self.port)]
        process = self._running.enter_context(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        )
        self._running.callback(process.kill)
        assert process.stdout
        assert process.stdout.readline(), "the server did not start"

    def kill(self):
        self._running.close()

    def is_in_the_middle(self):
        with urlopen(f"http://127.0.0.1:{self.port}/slots", timeout=10) as answer:
            [slot] = json.load(answer)
        return slot["is_processing"] and slot["next_token"][0]["n_decoded"] > LONG_TOKENS / 10


@pytest.fixture
def make_backend(tmp_path):
    backends: list[Backend] = []

    def make():
        directory = tmp_path / f"backend-{len(backends)}"
        directory.mkdir()
        backends.append(Backend(directory))
        backends[-1].start()
        return backends[-1]

    yield make
    for backend in backends:
        backend.kill()


@pytest.fixture
def backend(make_backend):
    return make_backend()


@pytest.fixture
def service(make_service, backend):
    return service_before(make_service, backend)


def service_before(make_service, *backends):
    urls = [f"http://127.0.0.1:{backend.port}/v1" for backend in backends]
    tiny = {"kind": "openai_compatible", "base_url": urls, "models": ["tiny"]}
    return make_service(
        executors__tiny=json.dumps(tiny),
        inference__retry_base_seconds=0.5,
        inference__retry_max_seconds=2,
    ).start()


def submit_long(service, max_attempts):
    options = {"model": "tiny", "max_tokens": LONG_TOKENS}
    return service.submit("tell me", options, max_attempts=max_attempts)


def test_a_task_completes_with_the_text_and_usage_of_the_model(service):
    task = service.until_done(service.submit("hello", {"model": "tiny", "max_tokens": 12}))
    assert (task["status"], task["executor"], task["model"]) == ("completed", "tiny", "tiny")
    assert len(task["result"]["output"]) == 12
    usage = task["usage"]
    assert usage["output_tokens"] == 12
    assert usage["input_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + 12


def test_a_server_killed_in_the_middle_fails_a_task_once_its_attempts_are_used_up(
    service, backend, eventually
):
    answered = submit_long(service, max_attempts=1)
    eventually(backend.is_in_the_middle, 20, "the model is at work")
    behind = submit_long(service, max_attempts=2)
    service.until_running(behind)
    backend.kill()
    check_that_it_failed(service.until_done(answered), "executor_error", 1)
    check_that_it_failed(service.until_done(behind), "executor_unavailable", 2)


def check_that_it_failed(task, code, failures):
    assert (task["status"], task["error"]["code"]) == ("failed", code)
    assert task["failures"] == task["attempt"] == failures
    assert task["result"] is None
    assert task["usage"] is None


def test_a_server_that_is_back_in_time_completes_the_task(service, backend, eventually):
    task_id = submit_long(service, max_attempts=10)
    eventually(backend.is_in_the_middle, 20, "the model is at work")
    backend.kill()
    backend.start()
    task = service.until_done(task_id, within=40)
    assert (task["status"], task["error"]) == ("completed", None)
    assert task["failures"] >= 1
    assert task["attempt"] > task["failures"]  # it may have been handed back while all was down
    assert task["usage"]["output_tokens"] == LONG_TOKENS


def test_with_two_servers_and_one_killed_under_load_no_task_fails(
    make_service, make_backend, eventually
):
    first, second = make_backend(), make_backend()
    service = service_before(make_service, first, second)
    ids = [submit_long(service, max_attempts=3) for _ in range(8)]
    eventually(first.is_in_the_middle, 20, "the first is at work")
    eventually(second.is_in_the_middle, 20, "the second is at work")
    first.kill()
    tasks = [service.until_done(task_id, within=60) for task_id in ids]
    assert {task["status"] for task in tasks} == {"completed"}
    assert {task["usage"]["output_tokens"] for task in tasks} == {LONG_TOKENS}
    assert any(task["failures"] for task in tasks)


def test_the_command_line_writes_the_text_while_the_model_does(service, command_line):
    options = ("--model=tiny", f"--option=max_tokens={3 * LONG_TOKENS}")
    process = command_line(service.url).start("submit", "tell me", "--wait", *options)
    pieces = [os.read(process.stdout.fileno(), 65_536)]
    [task] = service.request("GET", "/api/v1/task").json["data"]
    assert (task["status"], task["executor"]) == ("running", "tiny")
    while piece := os.read(process.stdout.fileno(), 65_536):
        pieces.append(piece)
    assert len(pieces) > 3
    task = service.until_done(task["task_id"])
    assert b"".join(pieces).decode() == task["result"]["output"] + "\n"
    assert len(task["result"]["output"]) == 3 * LONG_TOKENS
    assert process.wait(20) == 0
