"""A store and an executor from a package outside the repository: named, found, and run."""

import ast
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "plugin_example"
BY_NAME = {"store": "shelf", "executor": "shout"}
BY_ATTRIBUTE = {"store": "shelf.store:ShelfTaskStore", "executor": "shelf.executor:ShoutExecutor"}


@pytest.fixture
def package(tmp_path):
    """A copy of the example, importable but not installed."""
    ignored = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(EXAMPLE, tmp_path / "package", ignore=ignored)


@pytest.fixture
def installed(package, tmp_path):
    """A folder with the package and its entry points, as an installer lays them out."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    site = tmp_path / "site"
    shutil.copytree(package / project["name"], site / project["name"])
    metadata = site / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, names in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def imported_modules(folder):
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                yield node.module


def test_the_package_knows_the_domain_and_the_shipped_tests_only(package):
    ours = ("adapters", "domain", "entrypoints", "settings")
    known = {module for module in imported_modules(package) if module.startswith(ours)}
    assert {module for module in known if module.startswith("domain.")}
    assert {module for module in known if module.startswith("adapters.testing.")}
    assert [m for m in known if not m.startswith(("domain.", "adapters.testing."))] == []


def test_the_package_passes_the_shipped_contracts(package):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package)]
    environ = {
        "PYTHONPATH": str(package),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # those of ours would only take time
    }
    run = subprocess.run(command, cwd=package, env=environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" not in run.stdout
    passed = int(run.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed > 100, run.stdout


def test_a_service_runs_on_a_plug_in_named_by_its_attribute(make_service, package):
    check_that_it_runs(make_service, package, BY_ATTRIBUTE)


def test_a_service_runs_on_a_plug_in_named_by_its_entry_point(make_service, installed):
    check_that_it_runs(make_service, installed, BY_NAME)


def check_that_it_runs(make_service, folder, names):
    loud = {"kind": names["executor"], "models": ["loud"], "ending": "?!"}
    service = make_service(
        environ={"PYTHONPATH": str(folder)},
        store__backend=names["store"],
        executors__loud=json.dumps(loud),
    ).start()
    said = service.until_done(service.submit("hear me", {"model": "loud"}))
    assert (said["status"], said["executor"]) == ("completed", "loud")
    assert said["result"] == {"output": "HEAR ME?!"}
    echoed = service.until_done(service.submit("hear me", {}))
    assert echoed["executor"] == "echo"
    assert not (service.directory / "data").exists(), "the store of the settings was not used"


def test_a_wrong_option_of_a_plug_in_is_named(make_service, installed):
    loud = {"kind": "shout", "endng": "?!"}
    service = make_service(
        environ={"PYTHONPATH": str(installed)}, executors__loud=json.dumps(loud)
    ).launch()
    assert service.exit_code(within=20) == 2
    assert "endng" in service.log()
    assert "ending" in service.log()
