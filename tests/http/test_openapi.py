"""The document that clients are generated from, held against the service that it describes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import entrypoints.http
from entrypoints.http.controllers import (
    DocumentController,
    HealthController,
    ProbeController,
    TaskController,
)
from entrypoints.http.openapi import openapi_document
from entrypoints.http.schemas import Problem, TaskSubmission
from settings.schema import InferenceSettings, Settings

pytestmark = pytest.mark.any_store

COMMITTED = Path(entrypoints.http.__file__).parent / "openapi.json"
PYTHON = Path(sys.executable).parent


@pytest.fixture(scope="module")
def document():
    return json.loads(openapi_document(Settings()))


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_the_committed_copy_is_in_step():
    assert COMMITTED.read_bytes() == openapi_document(Settings())


def test_the_document_depends_on_the_settings_alone():
    settings = Settings(app_name="mine", inference=InferenceSettings(timeout_seconds=7))
    document = json.loads(openapi_document(settings))
    timeout = document["components"]["schemas"]["TaskSubmission"]["properties"]["timeout_seconds"]
    assert document["info"]["title"] == "mine"
    assert timeout["anyOf"][0]["maximum"] == 7
    assert openapi_document(settings) == openapi_document(settings)


def test_the_service_gives_the_same_document_at_both_places(edge, document):
    assert edge.ask("GET", "/schema/openapi.json").json == document
    assert edge.ask("GET", "/openapi.json").json == document


def test_every_route_is_described_under_its_operation_id(document):
    handlers = [
        handler
        for controller in (TaskController, HealthController, ProbeController, DocumentController)
        for handler in vars(controller).values()
        if getattr(handler, "operation_id", None)
    ]
    routed = {handler.operation_id for handler in handlers}
    described = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(described)) == len(described)
    assert routed == set(described)


def test_every_described_operation_answers(edge, document):
    for method, path, operation in operations(document):
        body = {"input": "x"} if method == "post" else None
        reply = edge.ask(method.upper(), path, body)
        assert str(reply.status) in operation["responses"]
        assert reply.json.get("code") not in ("not_found", "method_not_allowed")


def test_every_error_is_a_documented_problem_with_an_example(document):
    codes = set()
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            problem = response["content"].get("application/problem+json")
            if int(status) < 400 or problem is None:
                continue
            assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}
            for code, example in problem["examples"].items():
                shown = msgspec.convert(example["value"], Problem, strict=True)
                assert (shown.code, shown.status) == (code, int(status))
                codes.add(code)
    assert codes == {
        *["invalid_json", "invalid_encoding", "too_deep", "invalid_request", "host_not_allowed"],
        *["origin_not_allowed", "task_not_found", "body_incomplete", "body_too_large"],
        *["unsupported_media_type", "queue_full", "draining", "store_unavailable"],
        *["storage_full", "internal_error"],
    }


def test_answers_require_all_their_fields_and_requests_have_no_defaults(document):
    schemas = document["components"]["schemas"]
    for name in ("TaskView", "TaskCreated", "TaskError", "Usage", "Health", "Problem", "Fault"):
        assert schemas[name]["required"] == list(schemas[name]["properties"])
    assert schemas["TaskSubmission"]["required"] == ["input"]
    assert '"default"' not in json.dumps(schemas)
    assert schemas["TaskSubmission"]["additionalProperties"] is False


def test_every_reference_leads_somewhere_and_every_shape_is_used(document):
    text = json.dumps(document)
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert referred == set(document["components"]["schemas"])


def test_the_examples_are_what_the_service_takes_and_gives(edge, document):
    submit = document["paths"]["/api/v1/task/inference"]["post"]
    example = submit["requestBody"]["content"]["application/json"]["example"]
    msgspec.convert(example, TaskSubmission)
    reply = edge.submit(example)
    assert reply.json.keys() == example_of(submit, "202").keys()
    shown = edge.ask("GET", reply.headers["Location"])
    described = example_of(document["paths"]["/api/v1/task/{task_id}"]["get"], "200")
    assert list(shown.json) == list(described)


def example_of(operation, status):
    return operation["responses"][status]["content"]["application/json"]["example"]


def test_a_generated_client_submits_a_task_and_gets_its_result(service, tmp_path, eventually):
    options = tmp_path / "options.yaml"
    options.write_text("post_hooks: []")
    command: list[str | Path] = [PYTHON / "openapi-python-client", "generate", "--meta", "none"]
    generated = subprocess.run(
        [
            *command,
            "--path",
            COMMITTED,
            "--config",
            options,
            "--output-path",
            tmp_path / "generated_client",
        ],
        capture_output=True,
        text=True,
    )
    assert generated.returncode == 0, generated.stdout + generated.stderr
    assert "WARNING" not in (generated.stdout + generated.stderr).upper()
    used = subprocess.run(
        [sys.executable, "-c", USE_OF_THE_CLIENT, f"http://{service.connection.host}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert used.returncode == 0, used.stderr
    assert used.stdout == "Processed input: hello\n"


USE_OF_THE_CLIENT = """
import sys, time
from generated_client import Client
from generated_client.api.tasks import create_inference_task, get_task
from generated_client.models import TaskSubmission

with Client(base_url=sys.argv[1], raise_on_unexpected_status=True) as client:
    created = create_inference_task.sync(client=client, body=TaskSubmission(input_="hello"))
    deadline = time.monotonic() + 10
    task = get_task.sync(created.task_id, client=client)
    while not task.done and time.monotonic() < deadline:
        time.sleep(0.02)
        task = get_task.sync(created.task_id, client=client)
    print(task.result.output)
"""


def test_schemathesis_finds_nothing(service, tmp_path):
    base = f"http://{service.connection.host}"
    # JSON Schema has no words for "an integer of 64 bits, anywhere in here", so that what it allows
    # is more than what is taken. `test_refusals` covers what this check would.
    options = ["--exclude-checks=positive_data_acceptance", "--max-examples=15", "--seed=1"]
    done = subprocess.run(
        [
            PYTHON / "schemathesis",
            "run",
            f"{base}/openapi.json",
            *options,
            "--generation-database=none",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=115,
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
