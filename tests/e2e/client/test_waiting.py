"""A command that waits: output as it comes, whatever happens to the service meanwhile."""

import json
import os
import signal
import socket
import time

import pytest

COMPLETED, FAILED, WRONG_USE, UNUSABLE, CANCELLED = range(5)  # exit codes
INTERRUPTED = 130
TEXT = "a text that comes in many pieces " * 20
OUTPUT = f"Processed input: {TEXT}\n"
SLOWLY = ("submit", TEXT, "--wait", "--option=delay_seconds=3", "--option=chunk_characters=4")
RUNNING = {"attempt": 1, "at": "2026-11-25T08:00:00.000000Z", "outcome": None, "error_code": None}


def read_some(process):
    """The first piece that the command writes."""
    return os.read(process.stdout.fileno(), 65_536).decode()


def rest_of(process, within=60):
    rest, errors = process.communicate(timeout=within)
    return rest, errors


def event(number, kind, data):
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"


def output(number, delta, attempt=1):
    return event(number, "output", {"delta": delta, "index": 0, "attempt": attempt})


def task(text, status="completed"):
    result = None if text is None else {"output": text}
    return {"task_id": "t", "status": status, "done": True, "result": result, "error": None}


@pytest.fixture
def wait(made_up, invoke):
    """Wait for the task `t` of the made-up service."""
    made_up.will_answer("POST", "inference", '{"task_id": "t", "status": "pending"}', 202)

    def wait(*arguments):
        return invoke(made_up.url, "submit", "x", "--wait", "--patience=1", *arguments)

    return wait


def test_pieces_are_written_as_they_come(command_line, shared_service):
    process = command_line(shared_service.url).start(*SLOWLY)
    first = read_some(process)
    assert OUTPUT.startswith(first)
    assert len(first) < len(OUTPUT)
    pieces = [first]
    while piece := read_some(process):
        pieces.append(piece)
    assert "".join(pieces) == OUTPUT
    assert len(pieces) > 5
    assert rest_of(process) == ("", "")
    assert process.returncode == COMPLETED


def test_a_service_that_is_killed_and_comes_back_is_waited_for(command_line, make_service):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = make_service(server__port=port).start()
    process = command_line(service.url).start(*SLOWLY)
    first = read_some(process)
    service.kill()
    service.restart()
    rest, errors = rest_of(process)
    assert (first + rest, errors) == (OUTPUT, "")
    assert process.returncode == COMPLETED


def test_a_service_that_stays_away_is_given_up_and_the_task_is_named(command_line, make_service):
    service = make_service().start()
    process = command_line(service.url).start(*SLOWLY, "--patience=0.5")
    assert read_some(process)
    service.kill()
    _, errors = rest_of(process)
    assert process.returncode == UNUSABLE
    assert "goes on. `task-agent watch " in errors
    assert f"Error: no answer from {service.url}: " in errors


def test_who_interrupts_it_leaves_the_task_running_and_learns_how_to_stop_it(
    command_line, shared_service
):
    process = command_line(shared_service.url).start(*SLOWLY)
    read_some(process)
    process.send_signal(signal.SIGINT)
    _, errors = rest_of(process)
    assert process.returncode == INTERRUPTED
    task_id = errors.split()[1]
    assert f"`task-agent cancel {task_id}` stops it" in errors
    assert "Traceback" not in errors
    assert shared_service.until_done(task_id)["status"] == "completed"


def test_a_task_that_is_cancelled_meanwhile_ends_the_wait(command_line, shared_service):
    process = command_line(shared_service.url).start(*SLOWLY, "--model=to-be-cancelled")
    read_some(process)
    answer = shared_service.request("GET", "/api/v1/task?model=to-be-cancelled")
    [running] = answer.json["data"]
    shared_service.request("POST", f"/api/v1/task/{running['task_id']}/cancel")
    rest, errors = rest_of(process)
    assert (process.returncode, errors) == (CANCELLED, "The task is cancelled.\n")
    assert rest.endswith("\n")


def test_on_a_terminal_it_tells_how_it_goes_and_what_went_wrong(seen_by, shared_service):
    arguments = ("submit", "x", "--wait", "--option=fail_attempts=1", "--option=delay_seconds=0.5")
    seen, written = seen_by(shared_service.url, *arguments)
    assert written == "Processed input: x\n"
    assert "attempt 1: executor_error" in seen
    assert "running, attempt 2" in seen


# --- what only a made-up service does at will ----------------------------------------------------


def test_a_stream_that_is_cut_goes_on_where_it_was(wait, made_up):
    done = task("one two three")
    made_up.will_answer("GET", "t/events", output(1, "one ") + output(2, "two ") + "id: 3\nev")
    made_up.will_answer("GET", "t/events", ": nothing yet\n\n", content_length=1000)
    made_up.will_answer("GET", "t/events", "", 503, retry_after=1)
    made_up.will_answer("GET", "t/events", output(3, "three") + event(4, "done", done))
    made_up.will_answer("GET", "t", json.dumps(task(None, "running") | {"done": False}))
    ended = wait()
    assert (ended.exit_code, ended.stderr) == (COMPLETED, "")
    assert ended.stdout == "one two three\n"
    asked = [path.partition("?")[2] for _, path, _ in made_up.asked if "events" in path]
    assert asked == ["after=0", "after=2", "after=2", "after=2"]


def test_a_service_that_ends_streams_is_asked_again_in_its_time(wait, made_up):
    for _ in range(3):
        made_up.will_answer("GET", "t/events", ": bye\n\n")
    made_up.will_answer("GET", "t/events", event(1, "done", task("all of it")))
    made_up.will_answer("GET", "t", json.dumps(task(None, "running") | {"done": False}))
    started = time.monotonic()
    assert wait().stdout == "all of it\n"
    assert time.monotonic() - started >= 1.5


def test_streams_may_be_cut_for_longer_than_patience_lasts_if_the_service_answers(wait, made_up):
    for _ in range(8):
        made_up.will_answer("GET", "t/events", ": nothing yet\n\n", content_length=1000)
    made_up.will_answer("GET", "t/events", event(1, "done", task("all of it")))
    assert wait().stdout == "all of it\n"


def test_a_task_that_ended_while_the_stream_was_cut_is_told_whole(wait, made_up):
    made_up.will_answer("GET", "t/events", "")
    made_up.will_answer(
        "GET", "t/events", output(1, "all of it") + event(2, "done", task("all of it"))
    )
    made_up.will_answer("GET", "t", json.dumps(task("all of it")))
    assert wait("--json").stdout == json.dumps(task("all of it"), separators=(",", ":")) + "\n"


def test_another_attempt_that_says_the_same_is_not_written_twice(wait, made_up):
    events = output(1, "one two") + output(2, "one", 2) + output(3, " two three", 2)
    made_up.will_answer("GET", "t/events", events + event(4, "done", task("one two three")))
    assert wait().stdout == "one two three\n"


def test_another_attempt_that_says_something_else_is_written_on_a_line_of_its_own(wait, made_up):
    events = output(1, "one two") + output(2, "one", 2) + output(3, " more", 2)
    made_up.will_answer("GET", "t/events", events + event(4, "done", task("one more")))
    ended = wait()
    assert ended.stdout == "one two\none more\n"
    assert ended.stderr == "Another attempt has another output:\n"


def test_another_attempt_that_says_less_is_written_on_a_line_of_its_own(wait, made_up):
    events = output(1, "one two") + output(2, "one", 2)
    made_up.will_answer("GET", "t/events", events + event(3, "done", task("one")))
    assert wait().stdout == "one two\none\n"


def test_a_result_that_is_no_text_is_written_as_json(wait, made_up):
    made_up.will_answer("GET", "t/events", event(1, "done", task({"a": [1, "é"]})))
    assert wait().stdout == '{"a":[1,"é"]}\n'


def test_a_log_that_is_forgotten_leaves_the_result(wait, made_up):
    problem = {"code": "event_offset_lost", "detail": "They are forgotten.", "errors": []}
    made_up.will_answer("GET", "t/events", json.dumps(problem), 410)
    made_up.will_answer("GET", "t", json.dumps(task("all of it")))
    assert wait().stdout == "all of it\n"


def test_a_piece_of_a_failed_task_stays_on_a_line_of_its_own(wait, made_up):
    failed = task(None, "failed")
    failed["error"] = {"code": "timeout", "message": "too slow"}
    made_up.will_answer("GET", "t/events", output(1, "one") + event(2, "done", failed))
    ended = wait()
    assert (ended.exit_code, ended.stdout, ended.stderr) == (FAILED, "one\n", "timeout: too slow\n")


def test_a_refusal_for_now_is_asked_again_when_it_says(made_up, invoke):
    full = json.dumps({"code": "queue_full", "detail": "Too many.", "errors": []})
    made_up.will_answer("POST", "inference", full, 429, retry_after=1)
    made_up.will_answer("POST", "inference", '{"task_id": "t", "status": "pending"}', 202)
    started = time.monotonic()
    assert invoke(made_up.url, "submit", "x").stdout == "t\n"
    assert time.monotonic() - started >= 1
    first, second = made_up.asked
    assert first == second


def test_a_refusal_that_lasts_ends_the_command(made_up, invoke):
    full = json.dumps({"code": "draining", "detail": "Stopping.", "errors": []})
    made_up.will_answer("POST", "inference", full, 503)
    ended = invoke(made_up.url, "submit", "x", "--patience=0.3")
    assert (ended.exit_code, ended.stderr) == (UNUSABLE, "Error: draining: Stopping.\n")
    assert len(made_up.asked) > 1


def test_what_may_have_been_retried_is_not_retried_again(made_up, invoke):
    made_up.will_answer("POST", "t/retry", "", 503)
    ended = invoke(made_up.url, "retry", "t")
    assert (ended.exit_code, len(made_up.asked)) == (UNUSABLE, 1)


@pytest.mark.parametrize("answer", ["<html>", "[]", ""])
def test_what_is_no_task_service_is_found_out(made_up, invoke, answer):
    made_up.will_answer("GET", "t", answer)
    ended = invoke(made_up.url, "get", "t")
    assert ended.exit_code == UNUSABLE
    assert ended.stderr == f"Error: what answers at {made_up.url} is not this service\n"


@pytest.mark.parametrize("status", [301, 502])
def test_an_answer_of_something_between_is_named(made_up, invoke, status):
    made_up.will_answer("GET", "t", "<html>", status)
    ended = invoke(made_up.url, "get", "t", "--patience=0")
    assert ended.exit_code == UNUSABLE
    assert ended.stderr.startswith(f"Error: http_{status}: {made_up.url}/api/v1/task/t ")
