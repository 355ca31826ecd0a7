"""`serve --no-worker` and `worker`: how they start, work together, and stop."""

import json
from signal import SIGTERM

import pytest

WRONG_SETTINGS, UNUSABLE = 2, 3  # exit codes
START_SECONDS = 20  # of one that fails
DRAIN_SECONDS = 0.5


@pytest.fixture
def make_worker(make_service, database):
    """Make a worker on the test's database that is not started yet."""

    def make(**settings):
        shared = {"store__backend": "postgres", "store__dsn": database.dsn}
        return make_service(command="worker", **(shared | settings))

    return make


def events_of(process):
    return [json.loads(line)["event"] for line in process.lines]


def test_a_worker_runs_what_an_api_accepts_and_answers_probes_and_metrics_alone(
    make_fleet, eventually
):
    fleet = make_fleet(workers=1, worker__port=0)
    api, [worker] = fleet.api, fleet.workers
    task = api.until_done(api.submit("hello", {}))
    assert (task["status"], task["attempt"]) == ("completed", 1)
    assert task["result"] == {"output": "Processed input: hello"}
    eventually(lambda: "task_completed" in events_of(worker), 10, "the worker tells")
    assert "worker_ready" in events_of(worker)
    assert "service_ready" in events_of(api)
    assert "task_completed" not in events_of(api)

    assert worker.request("GET", "/livez").status == 200
    assert worker.request("GET", "/readyz").status == 200
    attempts = b'task_agent_attempts_total{executor="echo",outcome="completed"} 1.0'
    assert attempts in worker.request("GET", "/metrics").body
    for path in ("/", "/api/v1/health", f"/api/v1/task/{task['task_id']}", "/schema"):
        assert worker.request("GET", path).status == 404, path
    assert worker.post("hello", {}).status == 404


def test_a_worker_that_stops_hands_back_what_runs_and_another_one_finishes_it(make_fleet, database):
    # With max_crashes 0, a task that was not handed back fails.
    fleet = make_fleet(workers=2, server__drain_seconds=DRAIN_SECONDS, worker__max_crashes=0)
    task_id = fleet.api.submit("unfinished", {"delay_seconds": 2})
    fleet.api.until_running(task_id)
    first, other = sorted(fleet.workers, key=lambda worker: task_id not in database.held_by(worker))

    first.signal(SIGTERM)
    assert first.exit_code(within=DRAIN_SECONDS + 2) == 0
    assert "task_handed_back" in events_of(first)

    fleet.api.until_running(task_id, after_attempt=1)
    assert database.held_by(other) == {task_id: 2}
    assert fleet.api.until_done(task_id)["status"] == "completed"
    [counts] = database.fetch("SELECT attempt, failures, crashes FROM task")
    assert tuple(counts) == (2, 0, 0)


@pytest.mark.parametrize("backend", ["sqlite", "memory"])
def test_a_worker_on_a_store_that_one_process_owns_ends_with_one_message(make_service, backend):
    worker = make_service(command="worker", store__backend=backend)
    message = worker.failed_start(WRONG_SETTINGS, START_SECONDS)
    assert "store.backend" in message
    assert backend in message
    assert len(message.strip().splitlines()) == 1, message


def test_a_server_that_does_not_answer_ends_the_start(make_worker):
    worker = make_worker(store__dsn="postgresql://postgres@127.0.0.1:1/nobody")
    assert "PostgreSQL" in worker.failed_start(UNUSABLE, START_SECONDS)


def test_a_database_of_a_newer_schema_ends_the_start(make_worker, database):
    worker = make_worker()
    assert worker.launch("migrate").exit_code(START_SECONDS) == 0
    [[newer]] = database.fetch(
        "INSERT INTO task_schema (version) SELECT max(version) + 1 FROM task_schema"
        " RETURNING version"
    )
    assert f"version {newer}" in worker.failed_start(UNUSABLE, START_SECONDS)


def test_a_worker_that_may_not_migrate_starts_once_task_agent_migrate_has_run(make_worker):
    worker = make_worker(store__migrate_on_start=False)
    assert "task-agent migrate" in worker.failed_start(UNUSABLE, START_SECONDS)
    assert worker.launch("migrate").exit_code(START_SECONDS) == 0
    worker.start()
