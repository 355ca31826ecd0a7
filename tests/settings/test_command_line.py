"""The command line as a real process: what it shows, and how it refuses."""

import os
import resource
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

REFUSED_WITHIN_SECONDS = 3


@pytest.fixture
def task_agent(tmp_path):
    """Run the program with these arguments and variables, and nothing else that configures it."""

    def run(*arguments: str, **variables: str):
        ours = ("TASK_AGENT_", "ENV", "DEV_MODE")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return subprocess.run(
            [sys.executable, "-m", "entrypoints", *arguments],
            env=environ | variables,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


def processor_seconds():
    """What processes that ended have used: on a machine of its own, the time that they took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_version_is_that_of_the_distribution(task_agent):
    assert task_agent("--version").stdout == "task-agent 1.0.0\n"


def test_a_new_key_is_shown_with_the_settings_that_let_it_in(task_agent, tmp_path):
    shown = task_agent("key", "bob").stdout
    [key] = [line for line in shown.splitlines() if line.startswith("ta_")]
    (tmp_path / "keys.yaml").write_text(shown[shown.index("security:") :])
    accepted = task_agent("settings", "--settings", "keys.yaml").stdout
    assert '"name":"bob"' in accepted
    assert key not in accepted
    assert key not in task_agent("key", "bob").stdout


def test_a_key_for_an_impossible_name_is_refused(task_agent):
    refused = task_agent("key", "two words")
    assert refused.returncode == 2
    assert "'two words'; allowed: text of 1 to 64 characters" in refused.stderr


def test_help_names_every_command(task_agent):
    shown = task_agent("--help").stdout
    ours = ("serve", "worker", "settings", "executors", "openapi", "migrate", "key")
    for command in (*ours, "submit", "get", "list", "cancel", "retry", "watch", "queue"):
        assert f"\n  {command} " in shown


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        (["serve"], {"TASK_AGENT_SERVER__PROT": "1"}, "did you mean port?"),
        (["serve"], {"ENV": "prod"}, "ENV"),
        (["serve"], {"DEV_MODE": "maybe"}, "DEV_MODE"),
        (["serve"], {"TASK_AGENT_SERVER__PORT": "x"}, "server.port"),
        (["serve", "--settings", "missing.yaml"], {}, "missing.yaml"),
        (["serve", "--host", "0.0.0.0"], {}, "server.host"),
        (["serve"], {"TASK_AGENT_STORE__BACKEND": "sqlit"}, "did you mean sqlite?"),
        (["serve"], {"TASK_AGENT_EXECUTORS__X__KIND": "ecko"}, "did you mean echo?"),
        (["serve"], {"TASK_AGENT_EXECUTORS__ECHO__DELAY": "1"}, "did you mean delay_seconds?"),
        (["settings"], {"TASK_AGENT_INFERENCE": "[1]"}, "inference"),
        (["migrate", "--settings", "missing.yaml"], {}, "missing.yaml"),
        (["executors"], {"TASK_AGENT_EXECUTORS__X__KIND": "ecko"}, "did you mean echo?"),
        (
            ["executors"],
            {
                "TASK_AGENT_EXECUTORS__X__KIND": "http_json",
                "TASK_AGENT_EXECUTORS__X__URL": "models.example",
            },
            "url must start with http:// or https://",
        ),
        (["serve", "--port", "65536"], {}, "--port"),
        (["serve", "extra"], {}, "extra"),
        (["sreve"], {}, "sreve"),
    ],
)
def test_a_wrong_start_ends_at_once_with_one_message(task_agent, arguments, variables, named):
    before = processor_seconds()
    ended = task_agent(*arguments, **variables)
    assert processor_seconds() - before < REFUSED_WITHIN_SECONDS
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert named in ended.stderr
    assert ended.stderr.count("Error: ") == 1
    assert "Traceback" not in ended.stderr


def test_settings_are_shown_with_their_sources(task_agent, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("server: {drain_seconds: 0.5}\n")
    shown = task_agent("settings", "--settings", str(mine), TASK_AGENT_SERVER__PORT="9000").stdout
    lines = {line.split(" = ")[0]: line for line in shown.splitlines()}
    assert lines["server.port"].split("  # ")[0].strip() == "server.port = 9000"
    assert lines["server.port"].endswith("  # the variable TASK_AGENT_SERVER__PORT")
    assert lines["server.drain_seconds"].endswith(f"  # the file {mine}")
    assert lines["dev_mode"].endswith("  # settings/local.yaml")
    assert lines["executors.echo.kind"].startswith('executors.echo.kind = "echo" ')


def test_settings_are_shown_without_secrets(task_agent, tmp_path):
    (tmp_path / "key").write_text("s3cret")
    shown = task_agent(
        "settings",
        TASK_AGENT_EXECUTORS__GPT__KIND="openai_compatible",
        TASK_AGENT_EXECUTORS__GPT__BASE_URL="http://me:s3cret@127.0.0.1/v1",
        TASK_AGENT_EXECUTORS__GPT__API_KEY_FILE="key",
        TASK_AGENT_EXECUTORS__GPT__HEADERS='{"X-Any": "s3cret"}',
        TASK_AGENT_STORE__OPTIONS='{"dsn": "postgresql://me:s3cret@db/x", "password": "s3cret"}',
    ).stdout
    assert "s3cret" not in shown
    assert 'executors.gpt.api_key = "***"' in shown
    assert 'executors.gpt.headers.X-Any = "***"' in shown
    assert 'executors.gpt.base_url = "http://me:***@127.0.0.1/v1"' in shown


class Backend(BaseHTTPRequestHandler):
    """Says 200 to whoever brings the key, and 401 to others."""

    def do_GET(self):
        self.send_response(200 if self.headers["authorization"] == "Bearer s3cret" else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        return


@pytest.fixture
def backend():
    """The address of a backend that answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_executors_are_shown_with_their_options_and_how_they_are(task_agent, backend):
    shown = task_agent(
        "executors",
        TASK_AGENT_EXECUTORS__GPT__KIND="openai_compatible",
        TASK_AGENT_EXECUTORS__GPT__BASE_URL=backend,
        TASK_AGENT_EXECUTORS__GPT__API_KEY="s3cret",
        TASK_AGENT_EXECUTORS__GPT__MODELS='["*"]',
    )
    assert shown.returncode == 0
    assert shown.stdout.splitlines() == [
        "echo: ok",
        '  kind = "echo"',
        "  models = []",
        "  max_concurrent_tasks = null",
        "gpt: ok",
        '  kind = "openai_compatible"',
        '  models = ["*"]',
        "  max_concurrent_tasks = null",
        '  api_key = "***"',
        f'  base_url = "{backend}"',
        shown.stdout.splitlines()[-1],
    ]
    assert shown.stdout.splitlines()[-1].startswith("kinds: echo, http_json, openai_compatible, ")


def test_an_executor_that_is_not_well_says_why_and_hides_no_other(task_agent, backend):
    shown = task_agent(
        "executors",
        TASK_AGENT_EXECUTORS__GPT__KIND="openai_compatible",
        TASK_AGENT_EXECUTORS__GPT__BASE_URL=backend,
        TASK_AGENT_EXECUTORS__GONE__KIND="http_json",
        TASK_AGENT_EXECUTORS__GONE__URL="http://127.0.0.1:9/run",
        TASK_AGENT_EXECUTORS__MINE__KIND="python_callable",
        TASK_AGENT_EXECUTORS__MINE__TARGET="no_such_module:function",
    )
    assert shown.returncode == 3
    host = backend.removeprefix("http://").removesuffix("/v1")
    assert f"gpt: {host}: the backend answered 401 to a probe\n" in shown.stdout
    assert "gone: 127.0.0.1:9: no answer: ConnectionRefusedError\n" in shown.stdout
    assert "mine: target 'no_such_module:function' cannot be imported" in shown.stdout
    assert "echo: ok\n" in shown.stdout
    assert "Traceback" not in shown.stderr


def test_a_foreign_package_of_the_same_name_is_found_out(task_agent, tmp_path):
    (tmp_path / "settings").mkdir()
    ended = task_agent("--version")
    assert ended.returncode == 3
    assert f"the package `settings` comes from ['{tmp_path / 'settings'}']" in ended.stderr


def test_nothing_of_the_web_nor_of_terminals_is_imported_to_show_settings(tmp_path):
    program = (
        "import sys; from entrypoints.cli import main;"
        "main(['settings'], standalone_mode=False);"
        "print({'litestar', 'uvicorn', 'aiohttp', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stderr == "set()\n"
