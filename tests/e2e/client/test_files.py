"""Files of tasks: each line has its result once, whatever is killed on the way."""

import json
import resource
import signal
import socket
from functools import partial
from random import Random

import pytest

COMPLETED, FAILED, WRONG_USE, UNUSABLE = range(4)  # exit codes
INTERRUPTED = 130
SEED = 20_261_125
LINES = [(100, 4, 2), pytest.param(2_000, 64, 5, marks=pytest.mark.torture)]


@pytest.fixture
def write(tmp_path):
    """Write a file of tasks, and give its path."""

    def write(*lines):
        path = tmp_path / "tasks.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


@pytest.fixture
def results(tmp_path):
    """The results of that file, as they stand there."""

    def results():
        text = (tmp_path / "tasks.results.jsonl").read_text()
        assert text.endswith("\n") or not text
        return [json.loads(line) for line in text.splitlines()]

    return results


def numbered(count):
    return [json.dumps(f"task {number}") for number in range(1, count + 1)]


def lines_in(file):
    return file.read_bytes().count(b"\n") if file.exists() else 0


def has_lines(file, number):
    return lines_in(file) >= number


def check(results, count):
    """Each line has one result, and it is its own."""
    by_line = {result["line"]: result["task"] for result in results}
    assert len(results) == len(by_line) == count
    for line, task in by_line.items():
        assert task["result"] == {"output": f"Processed input: task {line}"}
    assert len({task["task_id"] for task in by_line.values()}) == count


def count_of_tasks(service):
    return service.request("GET", "/api/v1/health").json["tasks_count"]


def test_each_line_is_a_submission_or_the_text_of_one(run, write, results):
    path = write(
        '"a text"',
        '{"input": {"a": 1e2}, "options": {"chunk_characters": 2, "model": "mine"}, "priority": 2}',
        "",
        '  {"input": [{"role": "user", "content": "hi"}]}  ',
        '{"input": "no", "options": {"fail_permanently": true}}',
    )
    ended = run("submit", "--file", str(path), "--model=m", "--option=fail_attempts=0")
    assert ended.exit_code == FAILED
    assert ended.stderr.startswith("3 completed, 1 failed, of 4 lines, in ")
    assert ended.stdout == ""
    tasks = {result["line"]: result["task"] for result in results()}
    assert tasks[1]["result"]["output"] == "Processed input: a text"
    assert tasks[2]["result"]["output"] == 'Processed input: {"a":100.0}'
    assert tasks[4]["result"]["output"].startswith("Processed input: [{")
    assert tasks[5]["error"]["code"] == "executor_error"
    assert [tasks[line]["model"] for line in (1, 2, 4, 5)] == ["m", "mine", "m", "m"]
    assert [tasks[line]["priority"] for line in (1, 2)] == [0, 2]


def test_a_line_that_the_service_finds_fault_with_has_that_as_its_result(run, write, results):
    path = write("no json", '"good"', "[1]", '{"input": "x", "priority": 99}', '{"input"')
    ended = run("submit", "--file", str(path), "--model=m")
    assert ended.exit_code == FAILED
    assert ended.stderr.startswith("4 refused, 1 completed, of 5 lines")
    by_line = {result.pop("line"): result for result in results()}
    assert by_line[2]["task"]["status"] == "completed"
    assert by_line[4]["error"]["code"] == "invalid_request"
    assert by_line[4]["error"]["errors"][0]["path"] == "/priority"
    codes = {line: by_line[line]["error"]["code"] for line in (1, 3, 5)}
    assert codes == {1: "invalid_json", 3: "invalid_request", 5: "invalid_json"}


def test_on_a_terminal_it_tells_how_far_it_is(seen_by, write, shared_service):
    seen, written = seen_by(shared_service.url, "submit", "--file", str(write(*numbered(3))))
    assert "3/3" in seen
    assert written == ""


def test_a_disk_that_is_full_ends_the_run_which_goes_on_when_there_is_room(
    command_line, shared_service, write, results, tmp_path
):
    arguments = ("submit", "--file", str(write(*numbered(5))))
    commands = command_line(shared_service.url)
    little_room = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (2_000, 2_000))
    process = commands.start(*arguments, preexec_fn=little_room)
    assert "tasks.results.jsonl cannot be used: " in process.communicate(timeout=60)[1]
    assert process.returncode == UNUSABLE
    assert commands.start(*arguments).wait(60) == COMPLETED
    check(results(), 5)


def test_results_go_where_they_are_told_and_another_file_is_another_run(
    run, write, tmp_path, shared_service
):
    path, before = write('"x"'), count_of_tasks(shared_service)
    for name in ("one.jsonl", "two.jsonl", "two.jsonl"):
        ended = run("submit", "--file", str(path), "--out", str(tmp_path / name))
        assert ended.exit_code == COMPLETED
        assert (tmp_path / name).read_text().count("\n") == 1
    assert count_of_tasks(shared_service) == before + 2


def test_lines_that_are_added_later_are_run_later(run, write, results):
    run("submit", "--file", str(write(*numbered(3))))
    run("submit", "--file", str(write(*numbered(5))))
    check(results(), 5)


def test_a_result_that_was_cut_short_is_written_anew(run, write, results, tmp_path):
    path = write(*numbered(3))
    run("submit", "--file", str(path))
    file = tmp_path / "tasks.results.jsonl"
    file.write_bytes(file.read_bytes()[:-10])
    ended = run("submit", "--file", str(path))
    assert (ended.exit_code, ended.stderr.split(" in ")[0]) == (
        COMPLETED,
        "3 completed, of 3 lines,",
    )
    check(results(), 3)


def test_a_file_of_something_else_is_not_written_to(run, write, tmp_path):
    other = tmp_path / "mine.txt"
    other.write_text('{"line": 1, "task": {"status": "completed"}}\nmy words\n')
    ended = run("submit", "--file", str(write('"x"')), "--out", str(other))
    assert ended.exit_code == UNUSABLE
    assert ended.stderr == f"Error: {other}, line 2: this is no result\n"
    assert other.read_text().endswith("\nmy words\n")


def test_a_full_queue_is_waited_for(invoke, make_service, write, results):
    service = make_service(inference__max_pending_tasks=2, inference__max_concurrent_tasks=2)
    path = write(*numbered(12))
    ended = invoke(service.start().url, "submit", "--file", str(path), "--patience=0.01")
    assert ended.exit_code == COMPLETED
    check(results(), 12)
    assert '"status":429' in service.log()


@pytest.mark.parametrize(("count", "at_once", "kills"), LINES)
def test_a_run_killed_at_any_moment_and_started_again_has_each_line_once(
    command_line, make_service, eventually, write, results, tmp_path, count, at_once, kills
):
    service = make_service(
        inference__max_concurrent_tasks=64, executors__echo__delay_seconds=0.1
    ).start()
    commands = command_line(service.url)
    arguments = ("submit", "--file", str(write(*numbered(count))), f"--at-once={at_once}")
    file = tmp_path / "tasks.results.jsonl"
    random = Random(SEED)
    for share in sorted(random.uniform(0, 0.8) for _ in range(kills)):
        process = commands.start(*arguments)
        enough = max(lines_in(file) + 1, int(share * count))
        eventually(partial(has_lines, file, enough), 60, f"{enough} lines are written")
        process.kill()
        assert process.wait() == -signal.SIGKILL
    process = commands.start(*arguments)
    _, errors = process.communicate(timeout=110)
    assert process.returncode == COMPLETED, errors
    check(results(), count)
    assert count_of_tasks(service) == count


def test_a_run_goes_on_when_the_service_was_killed_and_is_back(
    command_line, make_service, eventually, write, results, tmp_path
):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = make_service(server__port=port, executors__echo__delay_seconds=0.05).start()
    process = command_line(service.url).start("submit", "--file", str(write(*numbered(150))))
    file = tmp_path / "tasks.results.jsonl"
    eventually(partial(has_lines, file, 1), 60, "results are written")
    service.kill()
    service.restart()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == COMPLETED, errors
    check(results(), 150)
    assert count_of_tasks(service) == 150


def test_a_run_is_interrupted_and_no_two_write_to_one_file(
    command_line, shared_service, eventually, write, tmp_path
):
    path = write('"quick"', '{"input": "slow", "options": {"delay_seconds": 60}}')
    commands = command_line(shared_service.url)
    first = commands.start("submit", "--file", str(path))
    file = tmp_path / "tasks.results.jsonl"
    eventually(partial(has_lines, file, 1), 60, "a result is written")
    second = commands.start("submit", "--file", str(path))
    assert f"Error: another run writes to {file}" in second.communicate(timeout=30)[1]
    assert second.returncode == UNUSABLE
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=30)
    assert first.returncode == INTERRUPTED
    assert errors == f"1 completed, of 2 lines, in {file}; the same command goes on.\n"
