"""The document that clients are generated from, held against the service that it describes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import entrypoints.http
from entrypoints.http.app import ROUTES
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
        for controller in ROUTES
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
            problem = response.get("content", {}).get("application/problem+json")
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
        *["storage_full", "internal_error", "unauthorized", "rate_limited", "not_retryable"],
        *["idempotency_mismatch", "event_offset_lost"],
    }


def test_answers_require_all_their_fields_and_requests_have_no_defaults(document):
    schemas = document["components"]["schemas"]
    sent = {"TaskSubmission", "Options", "ChatMessage"}
    left_out_unless_asked_for = {"ListedTask"}
    for name in schemas.keys() - sent - left_out_unless_asked_for:
        assert schemas[name].get("required", []) == list(schemas[name].get("properties", {}))
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


def test_the_examples_of_a_batch_are_what_the_service_takes_and_gives(edge, document):
    submit = document["paths"]["/api/v1/task/batch"]["post"]
    example = submit["requestBody"]["content"]["application/json"]["example"]
    given = edge.ask("POST", "/api/v1/task/batch", example).json["data"]
    described = example_of(submit, "202")["data"]
    assert [list(one) for one in given] == [list(one) for one in described]
    assert given[1] == described[1]


def example_of(operation, status):
    return operation["responses"][status]["content"]["application/json"]["example"]


LIFE = {"done": "Processed input: hello", "seen": True, "replayed": True, "mismatch": 422}
LIFE |= {"cancelled": "cancelled", "retry_of": True, "walked": 3, "deleted": 404, "waits": True}
LIFE |= {"batch": ["pending", "invalid_request"]}
LIFE |= {"streamed": True}
"""What a client prints that took a task through its life, in whichever language."""


def test_a_generated_python_client_takes_a_task_through_its_life(own_service, tmp_path):
    options = tmp_path / "options.yaml"
    options.write_text("post_hooks: []")
    command = [PYTHON / "openapi-python-client", "generate", "--meta", "none", "--path", COMMITTED]
    target = ["--config", options, "--output-path", tmp_path / "generated_client"]
    generated = run(*command, *target, cwd=tmp_path)
    assert "WARNING" not in generated.upper()
    used = run(sys.executable, "-c", USE_FROM_PYTHON, base_of(own_service), cwd=tmp_path)
    assert json.loads(used) == LIFE


def run(*command, cwd):
    """What the command prints; it must succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    return done.stdout


def base_of(edge):
    return f"http://{edge.connection.host}"


USE_FROM_PYTHON = """
import json, sys
from generated_client import Client
from generated_client.api.tasks import (
    cancel_task, create_inference_task, create_inference_tasks, delete_task, get_queue, get_task,
    list_tasks, retry_task, stream_task_events,
)
from generated_client.models import BatchSubmission, TaskCreated, TaskStatus, TaskSubmission

with Client(base_url=sys.argv[1], raise_on_unexpected_status=True) as client:
    def create(prefer="respond-async", **body):
        headers = {"prefer": prefer, "idempotency_key": body["input_"]}
        submission = TaskSubmission(**body)
        return create_inference_task.sync_detailed(client=client, body=submission, **headers)

    first = create(input_="hello", prefer="wait=30")
    task = get_task.sync(first.parsed.task_id, client=client)
    events = stream_task_events.sync(task.task_id, client=client, after=1)
    again = create(input_="hello")
    late = create(input_="late", delay_seconds=3600.0, priority=3)
    cancelled = cancel_task.sync(late.parsed.task_id, client=client)
    retried = retry_task.sync(cancelled.task_id, client=client)
    mismatch = create(input_="late", priority=4)
    create(input_="later", delay_seconds=3600.0)
    states = [TaskStatus.COMPLETED, TaskStatus.PENDING, TaskStatus.CANCELLED]
    page = list_tasks.sync(client=client, limit=3, status=states)
    queue = get_queue.sync(client=client)
    delete_task.sync_detailed(task.task_id, client=client)
    gone = get_task.sync_detailed(task.task_id, client=client)
    tasks = [TaskSubmission("one", delay_seconds=3600.0), TaskSubmission("two", priority=11)]
    batch = create_inference_tasks.sync(client=client, body=BatchSubmission(tasks))
    print(json.dumps({
        "done": first.parsed.result.output,
        "seen": task.result.output == first.parsed.result.output,
        "replayed": again.parsed.task_id == task.task_id,
        "mismatch": mismatch.status_code,
        "cancelled": cancelled.status,
        "retry_of": retried.retry_of == cancelled.task_id,
        "walked": len(page.data),
        "deleted": gone.status_code,
        "waits": queue.by_status.pending >= 1,
        "batch": [
            one.status if isinstance(one, TaskCreated) else one.error.code for one in batch.data
        ],
        "streamed": events.startswith("id: 2\\n") and "event: done\\n" in events,
    }))
"""


NPM = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=0"]
PACKAGES = ["openapi-typescript@7", "openapi-fetch@0", "typescript@5", "@types/node@20"]


@pytest.fixture(scope="session")
def node_project(tmp_path_factory):
    """A folder with the generator and the compiler in it; skipped where they cannot be had."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"there is no {missing[0]}")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"type": "module"}')
    try:
        installed = subprocess.run(
            [*NPM, *PACKAGES], cwd=folder, capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the registry of npm does not answer in time")
    if installed.returncode:
        pytest.skip(f"npm installs nothing: {installed.stderr.splitlines()[0]}")
    return folder


def test_a_generated_typescript_client_takes_a_task_through_its_life(own_service, node_project):
    tool = node_project / "node_modules" / ".bin"
    run(tool / "openapi-typescript", COMMITTED, "--output", "api.ts", cwd=node_project)
    (node_project / "life.ts").write_text(USE_FROM_TYPESCRIPT)
    options = ["--strict", "--module", "nodenext", "--target", "es2022", "--skipLibCheck", "false"]
    run(tool / "tsc", *options, "life.ts", cwd=node_project)
    used = run("node", "life.js", base_of(own_service), cwd=node_project)
    assert json.loads(used) == LIFE


USE_FROM_TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Task = components["schemas"]["TaskView"];
type Submission = components["schemas"]["TaskSubmission"];

const client = createClient<paths>({ baseUrl: process.argv[2] });

function create(body: Submission & { input: string }, prefer = "respond-async") {
  const header = { Prefer: prefer, "Idempotency-Key": body.input };
  return client.POST("/api/v1/task/inference", { body, params: { header } });
}

function got<T>(answer: { data?: T; error?: { code: string } }): T {
  if (answer.data === undefined) throw new Error(answer.error?.code);
  return answer.data;
}

const first = got(await create({ input: "hello" }, "wait=30"));
if (!("result" in first)) throw new Error("it has not ended");
const at = (task_id: string) => ({ params: { path: { task_id } } });
const task: Task = got(await client.GET("/api/v1/task/{task_id}", at(first.task_id)));
const events: string = got(await client.GET("/api/v1/task/{task_id}/events", {
  params: { path: { task_id: first.task_id }, query: { after: 1 } },
  parseAs: "text",
}));
const again = got(await create({ input: "hello" }));
const late = got(await create({ input: "late", delay_seconds: 3600, priority: 3 }));
const cancelled = got(await client.POST("/api/v1/task/{task_id}/cancel", at(late.task_id)));
const retried = got(await client.POST("/api/v1/task/{task_id}/retry", at(late.task_id)));
const mismatch = await create({ input: "late", priority: 4 });
await create({ input: "later", delay_seconds: 3600 });
const page = got(await client.GET("/api/v1/task", {
  params: { query: { limit: 3, status: ["completed", "pending", "cancelled"] } },
}));
const queue = got(await client.GET("/api/v1/queue"));
await client.DELETE("/api/v1/task/{task_id}", at(first.task_id));
const gone = await client.GET("/api/v1/task/{task_id}", at(first.task_id));
const tasks: Submission[] = [{ input: "one", delay_seconds: 3600 }, { input: "two", priority: 11 }];
const batch = got(await client.POST("/api/v1/task/batch", { body: { tasks } }));
console.log(JSON.stringify({
  done: first.result?.output,
  seen: task.result?.output === first.result?.output,
  replayed: again.task_id === task.task_id,
  mismatch: mismatch.response.status,
  cancelled: cancelled.status,
  retry_of: retried.retry_of === cancelled.task_id,
  walked: page.data.length,
  deleted: gone.response.status,
  waits: queue.by_status.pending >= 1,
  batch: batch.data.map((one) => "error" in one ? one.error.code : one.status),
  streamed: events.startsWith("id: 2\\n") && events.includes("event: done\\n"),
}));
"""


# A batch with a bad task in it is accepted; the answer says which of its tasks were not. The schema
# of a stream is that of a text, and would be taken for that of each event in it.
SCHEMATHESIS = """
[[operations]]
include-operation-id = "createInferenceTasks"
checks.negative_data_rejection.enabled = false

[[operations]]
include-operation-id = "streamTaskEvents"
checks.response_schema_conformance.enabled = false
"""


def test_schemathesis_finds_nothing(service, tmp_path):
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
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
