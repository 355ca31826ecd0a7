"""`dev_mode`: the service notices changes of its code and settings, and becomes the new version."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("domain", "adapters", "entrypoints", "settings")


@pytest.fixture
def project(tmp_path):
    """The project's code in a folder where it may be changed."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / "project" / package, ignore=ignored)
    return tmp_path / "project"


@pytest.fixture
def own_settings(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("executors: {echo: {delay_seconds: 300}}\n")
    return path


@pytest.fixture
def service(make_service, project, own_settings):
    environ = {"DEV_MODE": "true", "TASK_AGENT_SETTINGS": str(own_settings)}
    return make_service(project, environ).start()


@pytest.fixture
def replaced(service, eventually):
    """Wait until the process has become the new version."""

    def wait():
        def is_ready_again():
            assert service.process.poll() is None, service.log()
            return service.log().count('"service_ready"') > 1

        eventually(is_ready_again, 60, "the service is replaced")

    return wait


def test_changed_code_replaces_the_process(service, project, replaced):
    process_id = service.process.pid

    echo = project / "adapters" / "executors" / "echo.py"
    echo.write_text(echo.read_text().replace('"Processed input: ', '"Changed input: '))
    replaced()

    assert service.process.pid == process_id
    assert service.request("GET", "/api/v1/health").json["status"] == "healthy"
    task = service.until_done(service.submit("x", {"delay_seconds": 0}))
    assert task["result"] == {"output": "Changed input: x"}


def test_changed_settings_replace_the_process_and_what_ran_runs_again(
    service, own_settings, replaced
):
    running = service.submit("x", {})
    service.until_running(running)

    own_settings.write_text("executors: {echo: {delay_seconds: 0}}\n")
    replaced()

    task = service.until_done(running)
    assert task["status"] == "completed"
    assert (task["attempt"], task["failures"]) == (2, 0)


def test_code_that_cannot_be_parsed_is_logged_and_the_old_code_goes_on(
    service, project, eventually, replaced
):
    slow = service.submit("slow", {"delay_seconds": 2})
    broken = project / "domain" / "service.py"
    source = broken.read_text()
    broken.write_text(source + "\ndef broken(:\n")

    eventually(lambda: "reload_refused" in service.log(), 60, "the broken code is refused")
    assert "service.py, line" in service.log()
    assert service.log().count('"service_ready"') == 1
    assert service.until_done(slow)["attempt"] == 1

    broken.write_text(source)
    replaced()


def test_settings_that_are_wrong_are_logged_and_the_old_ones_go_on(
    service, own_settings, eventually
):
    own_settings.write_text("server: {prot: 1}\n")

    eventually(lambda: "reload_refused" in service.log(), 60, "the wrong settings are refused")
    assert "did you mean port?" in service.log()
    assert service.request("GET", "/api/v1/health").json["status"] == "healthy"


def test_without_dev_mode_nothing_is_watched(make_service, project):
    service = make_service(project).start()
    watching = Path(f"/proc/{service.process.pid}/fd")
    assert not any("inotify" in str(each.readlink()) for each in watching.iterdir())
