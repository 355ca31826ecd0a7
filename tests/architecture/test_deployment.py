"""The Dockerfile, compose.yaml and the unit of systemd keep step with the program they start.

Nothing is started here: what they say is held against the settings and the command line.
"""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from dynaconf.vendor.ruamel import yaml

from entrypoints.cli import main
from settings.loader import load_settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
OURS = {name: each for name, each in COMPOSE["services"].items() if each["image"] == "task-agent"}

DOCKER_STOPS_AFTER_SECONDS = 10
EXIT_SECONDS = 2  # promised after `server.drain_seconds`


class Start(NamedTuple):
    environ: dict[str, str]
    arguments: list[str]
    killed_after_seconds: float


def dockerfile(instruction: str) -> str:
    """What stands behind the last such instruction, on one line."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    said: list[str] = re.findall(rf"^{instruction} (.*)$", text, re.MULTILINE)
    return said[-1]


def pairs(assignments: list[str]) -> dict[str, str]:
    return dict(each.split("=", 1) for each in assignments)


def image() -> Start:
    environ = pairs(shlex.split(dockerfile("ENV")))
    return Start(environ, json.loads(dockerfile("CMD")), DOCKER_STOPS_AFTER_SECONDS)


def service(name: str) -> Start:
    said = OURS[name]
    seconds = float(said["stop_grace_period"].removesuffix("s"))
    return Start(image().environ | said["environment"], said["command"], seconds)


def unit() -> Start:
    text = (ROOT / ".deploy/task-agent.service").read_text()
    said = re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)
    environ = pairs([value for key, value in said if key == "Environment"])
    keys = dict(said)
    return Start(environ, keys["ExecStart"].split()[1:], float(keys["TimeoutStopSec"]))


STARTS = {"image": image(), "unit": unit()} | {name: service(name) for name in OURS}


@pytest.fixture(params=STARTS)
def start(request):
    return STARTS[request.param]


@pytest.fixture
def settings_of(tmp_path):
    """The settings of such a start, where every file of a secret is there."""
    secret = tmp_path / "secret"
    secret.write_text("postgresql://task_agent:secret@postgres:5432/task_agent")

    def settings_of(start):
        files = {name: str(secret) for name in start.environ if name.endswith("_FILE")}
        settings, _ = load_settings(environ=start.environ | files)
        return settings

    return settings_of


def test_every_way_to_start_is_looked_at():
    assert set(STARTS) == {"image", "unit", "migrate", "api", "worker"}


def test_its_variables_are_settings_and_no_code_is_reloaded(start, settings_of):
    assert settings_of(start).dev_mode is False


def test_its_command_is_one_of_the_program(start):
    name, *options = start.arguments
    main.commands[name].make_context(name, options)


def test_nobody_kills_it_before_it_has_drained(start, settings_of):
    drained = settings_of(start).server.drain_seconds + EXIT_SECONDS
    assert start.killed_after_seconds > drained


@pytest.mark.parametrize(
    ("name", "section"), [("image", "server"), ("api", "server"), ("worker", "worker")]
)
def test_the_health_check_asks_where_it_answers(name, section, settings_of):
    answers_on = getattr(settings_of(STARTS[name]), section).port
    assert f"'127.0.0.1', {answers_on}," in dockerfile("HEALTHCHECK")


def test_the_api_that_asks_for_no_key_is_published_on_loopback_alone(settings_of):
    assert settings_of(STARTS["api"]).security.allow_anonymous
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_the_image_alone_refuses_to_answer_others_unless_it_is_told_to(settings_of):
    settings = settings_of(STARTS["image"])
    assert settings.server.host == "0.0.0.0"
    assert not settings.security.allow_anonymous


def test_the_image_is_made_of_the_packages_and_what_installs_them():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == {
        "requirements.txt",
        "pyproject.toml",
        project["project"]["readme"],
        *(pattern.rstrip("*") for pattern in packages),
    }
