"""The service with a Python function behind it that does everything a function should not."""

import json
import os
import signal
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "functions"
HARM = ["exit", "segfault", "loop", "memory", "prints"]
MIB = 1024 * 1024


@pytest.fixture
def make_functions(make_service):
    """Make a service, not started, that runs a function of ours."""

    def make(function, *, environ=None, processes=2, **settings):
        ours = {
            "kind": "python_callable",
            "target": f"our_functions:{function}",
            "processes": processes,
            "max_memory_bytes": 256 * MIB,
            "models": ["ours"],
        }
        return make_service(
            environ={"PYTHONPATH": str(FOLDER)} | (environ or {}),
            executors__ours=json.dumps(ours),
            **settings,
        )

    return make


def submit(service, value, **fields):
    return service.submit(value, {"model": "ours"}, **fields)


def check_that_harm_is_done_to_the_bad_alone(make_functions, number):
    service = make_functions("misbehave", worker__max_crashes=2).start()
    pid = service.process.pid
    bad: dict[str, str] = {}
    good: dict[str, str] = {}
    with ThreadPoolExecutor(2) as clients:
        every = number // len(HARM)
        for start, harm in enumerate(HARM):
            names = [f"{start * every + n}" for n in range(every)]
            ids = clients.map(lambda name: submit(service, name), names)
            seconds = 2 if harm == "loop" else 60
            bad[harm] = submit(service, harm, max_attempts=1, timeout_seconds=seconds)
            good |= dict(zip(names, ids, strict=True))
    for name, task_id in good.items():
        task = service.until_done(task_id, within=60)
        assert (task["status"], task["attempt"]) == ("completed", 1), task
        assert task["result"] == {"output": f"good: {name}"}
    ended = {harm: service.until_done(task_id, within=60) for harm, task_id in bad.items()}
    codes = {harm: (task["error"] or {}).get("code") for harm, task in ended.items()}
    assert codes == {
        "exit": "worker_lost",
        "segfault": "worker_lost",
        "loop": "timeout",
        "memory": "executor_error",
        "prints": None,
    }
    assert ended["exit"]["attempt"] == ended["segfault"]["attempt"] == 3
    assert ended["prints"]["result"] == {"output": "good: prints"}
    assert service.process.pid == pid
    assert service.process.poll() is None
    assert service.request("GET", "/readyz").status == 200
    check_that_every_line_is_an_event_of_ours(service)


def check_that_every_line_is_an_event_of_ours(service):
    events = Counter(json.loads(line)["event"] for line in service.lines)
    assert "lease_lost" not in events
    assert "callable_printed" not in events  # an event of the level `debug`


def test_three_hundred_good_tasks_complete_among_five_bad_ones(make_functions):
    check_that_harm_is_done_to_the_bad_alone(make_functions, 300)


@pytest.mark.torture
def test_a_thousand_good_tasks_complete_among_five_bad_ones(make_functions):
    check_that_harm_is_done_to_the_bad_alone(make_functions, 1_000)


def slowest_submit_beside(service, value, processes, seconds):
    """In seconds, while so many functions do what `value` says; none of them may lose a lease."""
    options = {"model": "ours", "seconds": seconds}
    beside = [service.submit(value, options) for _ in range(processes)]
    for task_id in beside:
        service.until_running(task_id)
    taken = []
    while not all(service.task(task_id)["done"] for task_id in beside):
        started = time.monotonic()
        service.submit("x", {})
        taken.append(time.monotonic() - started)
    for task_id in beside:
        task = service.task(task_id)
        assert (task["status"], task["attempt"]) == ("completed", 1), task
    assert "lease_lost" not in service.log()
    print(f"{value}: {len(taken)} submits, {statistics.median(taken):.4f} … {max(taken):.4f} s")
    return max(taken)


@pytest.fixture
def make_patient(make_functions):
    """Start a service of so many processes, whose leases last for a second."""

    def make(processes):
        return make_functions(
            "misbehave",
            processes=processes,
            inference__max_concurrent_tasks=processes + 1,
            worker__lease_seconds=1,
        ).start()

    return make


def test_functions_that_hold_the_gil_for_four_leases_lose_none_and_delay_nobody(make_patient):
    slowest = slowest_submit_beside(make_patient(2), "hold the GIL", processes=2, seconds=4)
    assert slowest < 1  # far below the four seconds, on however busy a machine


@pytest.mark.torture
def test_ten_functions_that_hold_the_gil_for_ten_seconds_delay_no_request(make_patient):
    service = make_patient(10)
    idle = slowest_submit_beside(service, "sleep", processes=10, seconds=10)
    assert slowest_submit_beside(service, "hold the GIL", processes=10, seconds=10) < idle + 0.1


def test_a_killed_service_leaves_no_process_behind(make_functions, eventually):
    service = make_functions("misbehave", processes=3).start()
    service.until_running(submit(service, "loop"))
    eventually(lambda: len(children_of(service.process.pid)) == 3, 20, "all have started")
    children = children_of(service.process.pid)
    service.kill()
    eventually(lambda: not any(is_alive(pid) for pid in children), 5, "they are gone")


def test_a_cancelled_task_is_stopped_and_the_next_one_runs(make_functions):
    service = make_functions("misbehave", processes=1).start()
    task_id = submit(service, "loop")
    service.until_running(task_id)
    service.request("POST", f"/api/v1/task/{task_id}/cancel")
    assert service.until_done(task_id, within=5)["status"] == "cancelled"
    assert service.until_done(submit(service, "next"))["status"] == "completed"


def test_a_stopped_service_hands_back_what_runs_and_leaves_no_process(make_functions, eventually):
    service = make_functions("misbehave", processes=2, server__drain_seconds=0).start()
    task_id = submit(service, "loop")
    service.until_running(task_id)
    children = children_of(service.process.pid)
    service.signal(signal.SIGTERM)
    assert service.exit_code(within=10) == 0
    assert '"task_handed_back"' in service.log()
    eventually(lambda: not any(is_alive(pid) for pid in children), 5, "they are gone")


def test_a_target_that_cannot_be_imported_ends_the_start_and_is_named(make_functions):
    message = make_functions("nothing").failed_start(code=2, within=20)
    assert "executors.ours.target (from" in message
    assert "'our_functions:nothing' cannot be imported" in message


def test_a_model_that_does_not_load_keeps_the_tasks_waiting(make_service):
    ours = {"kind": "python_callable", "models": ["ours"], "target": "our_functions:where"}
    ours["load"] = "our_functions:load_never"
    service = make_service(
        environ={"PYTHONPATH": str(FOLDER)}, executors__ours=json.dumps(ours)
    ).start()
    task_id = submit(service, "x")
    assert service.until_done(service.submit("x", {}))["status"] == "completed"
    assert service.task(task_id)["status"] == "pending"
    assert "no GPU" in service.log()


def children_of(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def is_alive(pid):
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
