"""The examples of the original description, word for word, against a service with defaults."""

import json
import re
import shutil
import subprocess

import pytest

INPUT = "这是一个测试输入"
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


@pytest.fixture
def curl():
    program = shutil.which("curl")
    if program is None:
        pytest.skip("the seed's examples need curl, which is not installed here")

    def run(*arguments):
        command = [program, "--silent", "--show-error", "--max-time", "20", *arguments]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    return run


def test_the_three_curl_examples_answer_as_described(make_service, curl, eventually):
    service = make_service().start()
    base = f"http://localhost:{service.address[1]}"
    body = f'{{"input": "{INPUT}", "options": {{"model": "gpt-3.5-turbo", "temperature": 0.7}}}}'

    created = curl(
        *("-X", "POST", f"{base}/api/v1/task/inference"),
        *("-H", "Content-Type: application/json", "-d", body),
    )
    assert created["status"] == "pending"

    def completed():
        task = curl(f"{base}/api/v1/task/{created['task_id']}")
        return task if task["status"] == "completed" else None

    task = eventually(completed, 10, "the example completes")
    assert task["task_id"] == created["task_id"]
    assert task["result"] == {"output": f"Processed input: {INPUT}"}
    assert task["error"] is None
    for key in ("created_at", "started_at", "completed_at"):
        assert re.fullmatch(TIMESTAMP, task[key]), task[key]
    assert task["created_at"] <= task["started_at"] <= task["completed_at"]

    health = curl(f"{base}/api/v1/health")
    assert health | {"status": "healthy", "version": "1.0.0", "tasks_count": 1} == health
