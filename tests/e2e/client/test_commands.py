"""The commands for people: what each shows, to people and to scripts, and how it ends."""

import io
import json
import os
import pty
import re

import pytest

COMPLETED, FAILED, WRONG_USE, UNUSABLE, CANCELLED, NOT_DONE = range(6)  # exit codes
LONG = {"delay_seconds": 60}


@pytest.fixture
def running(shared_service):
    """The id of a task that runs, and goes on for longer than the test."""
    task_id = shared_service.submit("x", LONG)
    shared_service.until_running(task_id)
    yield task_id
    shared_service.request("DELETE", f"/api/v1/task/{task_id}")


def of_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_submit_shows_the_id_of_the_new_task(run, shared_service):
    ended = run(
        "submit", "hello", "--model=m", "--option=a=[1]", "--option=b=null", "--priority=-3"
    )
    assert (ended.exit_code, ended.stderr) == (COMPLETED, "")
    task = shared_service.until_done(ended.stdout.removesuffix("\n"))
    assert task["result"]["output"] == "Processed input: hello"
    assert (task["model"], task["priority"]) == ("m", -3)


def test_submit_for_scripts_shows_the_answer_of_the_service(run):
    assert json.loads(run("submit", "hello", "--json").stdout).keys() == {"task_id", "status"}


def test_what_is_submitted_again_under_one_key_is_one_task(run):
    first, second = (run("submit", "hello", "--key=order-17").stdout for _ in range(2))
    assert first == second


def test_a_dash_is_the_text_on_standard_input(run):
    ended = run("submit", "-", "--wait", input="two\nlines\n")
    assert ended.stdout == "Processed input: two\nlines\n\n"


def test_a_text_that_is_waited_for_is_all_there_is_on_standard_output(run):
    ended = run("submit", "hello", "--wait")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (
        COMPLETED,
        "Processed input: hello\n",
        "",
    )


def test_a_task_that_is_waited_for_is_shown_whole_to_scripts(run):
    ended = run("submit", "hello", "--wait", "--json", "--option=delay_seconds=0.1")
    [task] = of_lines(ended.stdout)
    assert (task["status"], task["result"]["output"]) == ("completed", "Processed input: hello")


def test_a_failed_task_says_why_and_ends_with_a_code_of_its_own(run):
    ended = run("submit", "hello", "--wait", "--option=fail_permanently=true")
    assert (ended.exit_code, ended.stdout) == (FAILED, "")
    assert ended.stderr == "executor_error: failed for good, as `fail_permanently` asked\n"


def test_get_shows_a_task_and_its_output(run, shared_service):
    task_id = shared_service.submit("two\nlines", {"model": "m"})
    shared_service.until_done(task_id)
    ended = run("get", task_id)
    head, _, output = ended.stdout.partition("\n\n")
    assert output == "Processed input: two\nlines\n"
    assert {f"task_id: {task_id}", "status: completed", "model: m"} <= set(head.splitlines())
    assert json.loads(run("get", task_id, "--json").stdout) == shared_service.task(task_id)


def test_get_waits_no_longer_than_it_is_told(run, running):
    assert run("get", running).exit_code == COMPLETED
    ended = run("get", running, "--wait=1")
    assert ended.exit_code == NOT_DONE
    assert "\nstatus: running\n" in ended.stdout


def test_get_ends_as_soon_as_the_task_does(run, shared_service):
    task_id = shared_service.submit("x", {"delay_seconds": 0.3})
    ended = run("get", task_id, "--wait=600", "--json")
    assert (ended.exit_code, json.loads(ended.stdout)["status"]) == (COMPLETED, "completed")


def test_cancel_goes_on_after_a_task_that_is_not_there(run, running, shared_service):
    ended = run("cancel", "nobody", running)
    assert ended.exit_code == WRONG_USE
    assert ended.stderr == "nobody: task_not_found: There is no task with this id.\n"
    assert re.fullmatch(rf"{running}\t(running|cancelled)\n", ended.stdout)
    assert shared_service.until_done(running)["status"] == "cancelled"
    assert run("watch", running).exit_code == CANCELLED


def test_retry_submits_it_once_more(run, shared_service):
    task_id = shared_service.submit("x", {"fail_permanently": True})
    shared_service.until_done(task_id)
    ended = run("retry", task_id, "--wait", "--json")
    [task] = of_lines(ended.stdout)
    assert (ended.exit_code, task["retry_of"], task["status"]) == (FAILED, task_id, "failed")


def test_what_cannot_be_retried_is_refused_in_one_line(run, running):
    ended = run("retry", running)
    assert ended.exit_code == WRONG_USE
    assert ended.stderr == "Error: not_retryable: This task is running.\n"


def test_watch_shows_every_event_on_a_line(run, shared_service):
    task_id = shared_service.submit("hi", {"fail_attempts": 1})
    shared_service.until_done(task_id)
    ended = run("watch", task_id)
    assert ended.exit_code == COMPLETED
    assert ended.stdout.splitlines() == [
        "1\tstatus\tpending",
        "2\tstatus\trunning (attempt 1)",
        "3\tstatus\tpending (attempt 1) executor_error",
        "4\tstatus\trunning (attempt 2)",
        '5\toutput\t"Processed input: hi"',
        "6\tstatus\tcompleted (attempt 2)",
        "7\tdone\tcompleted",
    ]
    rest = of_lines(run("watch", task_id, "--after=4", "--json").stdout)
    assert [(event["id"], event["event"]) for event in rest] == [
        (5, "output"),
        (6, "status"),
        (7, "done"),
    ]
    assert rest[-1]["data"] == shared_service.task(task_id)


def test_nothing_is_left_to_watch_behind_the_last_event(run, shared_service):
    task_id = shared_service.submit("hi", {})
    shared_service.until_done(task_id)
    ended = run("watch", task_id, "--after=1000")
    assert (ended.exit_code, ended.stdout) == (COMPLETED, "")


def test_a_list_is_of_cells_between_tabs_and_as_long_as_it_is_asked_for(run, shared_service):
    ids = [shared_service.submit("x", {"model": "a\tb"}) for _ in range(130)]
    for task_id in ids:
        shared_service.until_done(task_id)
    newest_first = ids[::-1]
    rows = [line.split("\t") for line in run("list", "--limit=2").stdout.splitlines()]
    assert [row[:2] + row[3:] for row in rows] == [
        [task_id, "completed", "a b"] for task_id in newest_first[:2]
    ]
    everything = of_lines(run("list", "--model=a\tb", "--all", "--json").stdout)
    assert [task["task_id"] for task in everything] == newest_first
    some = of_lines(run("list", "--model=a\tb", "--limit=120", "--json").stdout)
    assert some == everything[:120]


def test_a_list_is_of_those_that_are_asked_for(run, running):
    shown = run("list", "--status=running", "--status=pending").stdout
    assert [line.split("\t")[0] for line in shown.splitlines()] == [running]
    assert run("list", "--model=no such model").stdout == ""


def test_the_queue_tells_what_runs(run, running):
    assert run("queue").stdout.splitlines()[:2] == ["all\t\t0\t1\t", "executor\techo\t0\t1\t1"]
    assert json.loads(run("queue", "--json").stdout)["by_status"] == {"pending": 0, "running": 1}


def test_on_a_terminal_a_list_is_a_table(command_line, running, shared_service):
    ours, theirs = pty.openpty()
    started = command_line(shared_service.url).start("list", "--status=running", stdout=theirs)
    assert started.wait(20) == COMPLETED
    os.close(theirs)
    seen = os.read(ours, 65_536).decode()
    os.close(ours)
    head, row = re.sub(r"\x1b\[\d*m", "", seen).splitlines()
    assert head.split() == ["task", "status", "created", "model"]
    assert re.fullmatch(rf"{running}  running +\d\d-\d\d \d\d:\d\d:\d\d +", row)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["submit"], "TEXT"),
        (["submit", "x", "--file=/dev/null"], "TEXT"),
        (["submit", "x", "--out=results.jsonl"], "--out"),
        (["submit", "--file=missing.jsonl"], "missing.jsonl"),
        (["submit", "x", "--option=temperature"], "allowed: NAME=JSON"),
        (["submit", "x", "--option=temperature=hot"], "'temperature=hot'"),
        (["submit", "x", "--priority=11"], "--priority"),
        (["submit", "x", "--key=two words"], "'two words'; allowed: 1 … 255 visible ASCII"),
        (["submit", "x", "--model", "m" * 300], "invalid_request"),
        (["get", ""], "''"),
        (["get", "nobody"], "task_not_found"),
        (["watch", "nobody"], "task_not_found"),
        (["list", "--status=lost"], "'lost'"),
        (["list", "--limit=0"], "--limit"),
        (["cancel"], "ID"),
    ],
)
def test_wrong_use_is_told_at_once(run, arguments, named):
    ended = run(*arguments)
    assert (ended.exit_code, ended.stdout) == (WRONG_USE, "")
    assert named in ended.stderr
    assert ended.stderr.count("Error: ") == 1


def test_a_refusal_names_every_fault(run):
    ended = run("submit", "x", "--model", "m" * 300)
    assert ended.exit_code == WRONG_USE
    assert "/options/model: " in ended.stderr


def test_standard_input_that_is_no_text_is_refused(run):
    ended = run("submit", "-", input=b"\xff")
    assert ended.exit_code == WRONG_USE
    assert "it is not UTF-8" in ended.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_a_service_that_never_answered_is_not_waited_for(invoke, url):
    ended = invoke(url, "submit", "x")
    assert ended.exit_code == UNUSABLE
    assert ended.stderr.startswith(f"Error: no answer from {url}: ")


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://127.0.0.1", "http://", "http://h:x", "http://me:s3cret@h"]
)
def test_what_is_no_url_is_refused(invoke, url):
    ended = invoke(url, "queue")
    assert ended.exit_code == WRONG_USE
    assert f"{url!r}; allowed: http:// or https://, a host, a path" in ended.stderr


def test_an_api_key_opens_the_service_and_is_shown_nowhere(invoke, make_service):
    shown = invoke("", "key", "bob").stdout
    [key], [digest] = re.findall(r"ta_\S+", shown), re.findall(r"sha256: (\S+)", shown)
    entry = {"name": "bob", "sha256": digest}
    service = make_service(security__api_keys=[entry]).start()
    assert invoke(service.url, "submit", "x", api_key=f"{key}\n").exit_code == COMPLETED
    for wrong in (None, "ta_wrong"):
        ended = invoke(service.url, "submit", "x", api_key=wrong)
        assert ended.exit_code == UNUSABLE
        assert ended.stderr.startswith("Error: unauthorized: ")
    impossible = invoke(service.url, "submit", "x", api_key="ké y")
    assert impossible.exit_code == WRONG_USE
    assert "ké y" not in impossible.stderr


def test_a_shell_completes_commands_and_their_options(invoke, monkeypatch):
    def completed(words, number, **keywords):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(number))
        monkeypatch.setenv("_TASK_AGENT_COMPLETE", "bash_complete")
        return invoke("", prog_name="task-agent", **keywords).stdout

    assert "plain,submit" in completed("task-agent sub", 1)
    assert "plain,running" in completed("task-agent list --status r", 3)
    typed = io.BytesIO(b"what the shell is to read")
    assert "plain,--wait" in completed("task-agent submit - --w", 3, input=typed)
    assert typed.tell() == 0
