"""The locked requirements are the ones that pyproject.toml asks for: `make lock` was run."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS = PROJECT["dependency-groups"]
TO_RUN = [*PROJECT["project"]["dependencies"], *GROUPS["build"]]
ASKED = {
    "requirements.txt": TO_RUN,
    "requirements-dev.txt": [*TO_RUN, *GROUPS["dev"]],
}
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(.*?)(?=^[A-Za-z0-9]|\Z)", re.DOTALL | re.MULTILINE
)


def pins(lock):
    """Name -> (version, everything that stands below the name) of one lock file."""
    text = (ROOT / lock).read_text()
    return {canonicalize_name(name): (version, rest) for name, version, rest in PIN.findall(text)}


@pytest.fixture(params=ASKED)
def lock(request):
    return request.param


def test_each_pinned_version_is_one_that_is_asked_for(lock):
    locked = pins(lock)
    for requirement in map(Requirement, ASKED[lock]):
        version, _ = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{lock}: {requirement} is {version}"


def test_nothing_is_pinned_for_this_project_that_it_no_longer_asks_for(lock):
    asked = {canonicalize_name(Requirement(each).name) for each in ASKED[lock]}
    for_us = {name for name, (_, rest) in pins(lock).items() if "task-agent (pyproject" in rest}
    assert for_us == asked


def test_each_pin_carries_the_hashes_of_its_files(lock):
    locked = pins(lock)
    assert locked
    assert [name for name, (_, rest) in locked.items() if "--hash=sha256:" not in rest] == []


def test_what_runs_is_what_is_developed_with():
    to_develop = pins("requirements-dev.txt")
    for name, (version, _) in pins("requirements.txt").items():
        assert to_develop[name][0] == version


def test_the_locks_name_no_place_to_fetch_from(lock):
    text = (ROOT / lock).read_text()
    assert re.findall(r"https?://|file:|--find-links|--(?:extra-)?index", text) == []
