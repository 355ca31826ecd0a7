"""How the real process starts: at once, or with an exit code and one message that says why."""

import json
import socket
import sqlite3
import stat
from contextlib import closing
from signal import SIGTERM

import pytest

DATABASE = "data/task-agent.db"
WRONG_SETTINGS, UNUSABLE = 2, 3  # exit codes
SECRET = "sk-4f1d-never-to-be-logged"
PRIVATE = "the-words-of-a-client"


def files_in(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_a_port_that_is_taken_ends_the_start(make_service):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        message = make_service(server__port=port).failed_start(UNUSABLE, within=20)
    assert str(port) in message


def test_a_store_locked_by_a_live_service_ends_the_start_and_leaves_that_one_undisturbed(
    make_service,
):
    first = make_service().start()
    task_id = first.submit("running", {"delay_seconds": 1})
    first.until_running(task_id)
    message = make_service(first.directory).failed_start(UNUSABLE, within=20)
    assert "task-agent.db" in message
    task = first.until_done(task_id)
    assert (task["status"], task["attempt"]) == ("completed", 1)
    first.until_done(first.submit("after", {}))


@pytest.mark.parametrize(
    "content", [b"", b"this is no database" * 500], ids=["empty", "no database"]
)
def test_a_file_that_is_no_store_ends_the_start_and_keeps_its_bytes(make_service, content):
    service = make_service()
    database = service.directory / DATABASE
    database.parent.mkdir()
    database.write_bytes(content)
    message = service.failed_start(UNUSABLE, within=20)
    assert "task-agent.db" in message
    assert files_in(database.parent)[database.name] == content


@pytest.fixture
def stored(make_service):
    """A service that does not run, with a store."""
    service = make_service()
    assert service.launch("migrate").exit_code(within=20) == 0
    return service


def test_a_damaged_store_ends_the_start_and_keeps_its_bytes(stored):
    database = stored.directory / DATABASE
    damaged = bytearray(database.read_bytes())
    damaged[100:4096] = bytes(4096 - 100)
    database.write_bytes(damaged)
    stored.failed_start(UNUSABLE, within=20)
    assert database.read_bytes() == bytes(damaged)


def test_a_store_of_a_newer_schema_ends_the_start_and_keeps_its_bytes(stored):
    database = stored.directory / DATABASE
    with closing(sqlite3.connect(database)) as connection:
        [version] = connection.execute("PRAGMA user_version").fetchone()
        assert version > 0
        connection.execute(f"PRAGMA user_version = {version + 1}")
    before = files_in(database.parent)
    message = stored.failed_start(UNUSABLE, within=20)
    assert str(version + 1) in message
    assert files_in(database.parent) == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"inference__max_concurrent_tasks": 0},
            ["inference.max_concurrent_tasks", "TASK_AGENT_INFERENCE__MAX_CONCURRENT_TASKS", "0"],
        ),
        ({"inference__max_concurent_tasks": 4}, ["max_concurent_tasks", "max_concurrent_tasks"]),
        (
            {"executors__model": '{"kind": "openai_compatible", "base_ur": "http://localhost"}'},
            ["executors.model", "base_ur", "base_url"],
        ),
        ({"server__host": "0.0.0.0"}, ["server.host", "0.0.0.0", "security.allow_anonymous"]),
    ],
    ids=["out of range", "misspelt key", "misspelt option", "open host"],
)
def test_a_wrong_setting_ends_the_start_with_one_message_that_names_it(
    make_service, settings, words
):
    service = make_service(**settings)
    message = service.failed_start(WRONG_SETTINGS, within=3)  # as promised
    assert [word for word in words if word not in message] == []
    assert len(message.strip().splitlines()) <= 5, message


def test_service_ready_means_that_the_first_request_is_answered_and_runs(make_service):
    service = make_service()
    for start in range(2):
        service.start()
        answer = service.post("first", {})
        assert answer.status == 202
        assert service.until_done(answer.json["task_id"], within=2)["status"] == "completed"
        assert service.request("GET", "/readyz").status == 200, start
        service.signal(SIGTERM)
        assert service.exit_code(within=2) == 0, "an idle service stops at once"


def test_the_data_is_for_its_owner_only(make_service):
    service = make_service().start()
    service.until_done(service.submit("private", {}))
    data = service.directory / "data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()}
    assert DATABASE.removeprefix("data/") in modes
    assert set(modes.values()) == {0o600}


def test_the_log_is_json_lines_without_bodies_and_secrets(make_service):
    model = {"kind": "openai_compatible", "base_url": "http://127.0.0.1:9", "api_key": SECRET}
    service = make_service(
        logging__level="debug",
        executors__model=json.dumps(model | {"models": ["m"]}),
        inference__retry_base_seconds=0,
    ).start()
    done = service.submit(PRIVATE, {"note": PRIVATE}, metadata={"note": PRIVATE})
    failing = service.submit(PRIVATE, {"model": "m", "note": PRIVATE})
    refused = service.post(PRIVATE, {}, **{PRIVATE: 1})
    assert service.until_done(done)["status"] == "completed"
    assert service.until_done(failing)["error"]["code"] == "executor_unavailable"
    assert refused.status == 400
    service.signal(SIGTERM)
    assert service.exit_code(within=5) == 0
    records = [json.loads(line) for line in service.lines]
    assert {"service_ready"} <= {record["event"] for record in records}
    assert done in service.log()
    assert failing in service.log()
    assert PRIVATE not in service.log()
    assert SECRET not in service.log()
