"""A store that fails under the real process, and one without room: health stays honest."""

import resource
import shutil
import sys

import pytest

NOTICED_WITHIN_SECONDS = 5  # promised
linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can take a running process's right to write"
)


def set_largest_file(service, size):
    """Let the process write files up to this size; pipes and sockets are not concerned."""
    _, hard = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def status_of(service, path):
    return service.request("GET", path).status


@linux_only
def test_a_store_that_cannot_write_is_not_ready_until_it_can_again(make_service, eventually):
    service = make_service(inference__max_concurrent_tasks=2).start()
    running = service.submit("running", {"delay_seconds": 1})
    service.until_running(running)
    assert status_of(service, "/readyz") == 200

    set_largest_file(service, 0)
    eventually(
        lambda: status_of(service, "/readyz") == 503, NOTICED_WITHIN_SECONDS, "the fault shows"
    )
    refused = service.post("refused", {})
    assert (refused.status, refused.json["code"]) == (503, "store_unavailable")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert status_of(service, "/api/v1/health") == 503
    assert service.request("GET", "/api/v1/health").json["status"] == "unhealthy"
    assert status_of(service, "/livez") == 200

    set_largest_file(service, resource.RLIM_INFINITY)
    eventually(lambda: status_of(service, "/readyz") == 200, 10, "the recovery")
    task = service.until_done(running, within=10)
    assert (task["status"], task["attempt"]) == ("completed", 1)
    service.until_done(service.submit("after", {}))
    assert service.request("GET", "/api/v1/health").json["tasks_count"] == 2


def test_with_too_little_room_submits_are_refused_and_all_else_goes_on(make_service, eventually):
    service = make_service(inference__max_concurrent_tasks=1).start()
    running = service.submit("running", {"delay_seconds": 0.2})
    waiting = service.submit("waiting", {"delay_seconds": 0.2})
    service.until_running(running)
    service.kill()
    free = shutil.disk_usage(service.directory).free
    service.settings["store__min_free_bytes"] = 2 * free
    service.restart()
    refused = service.post("refused", {})
    assert (refused.status, refused.json["code"]) == (503, "storage_full")
    assert service.until_done(running)["status"] == "completed"
    assert service.until_done(waiting)["status"] == "completed"
    eventually(
        lambda: status_of(service, "/readyz") == 503, NOTICED_WITHIN_SECONDS, "the lack shows"
    )
