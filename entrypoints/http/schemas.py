"""The shapes of the API, as they stand in the OpenAPI document.

Answers have no defaults: a default would drop its field from `required`.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from domain.inference import Usage
from domain.task import Task, TaskError, TaskStatus

VERSION: Final = version("task-agent")

# --- what is sent ------------------------------------------------------------------------------

MOST_METADATA: Final = 16
_NO_NUL: Final = "^[^\\x00]*$"

Model = Annotated[str, Meta(max_length=256, pattern=_NO_NUL, examples=["gpt-3.5-turbo"])]
MetadataKey = Annotated[str, Meta(min_length=1, max_length=64, pattern=_NO_NUL)]
MetadataValue = Annotated[str, Meta(max_length=512, pattern=_NO_NUL)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=MOST_METADATA)]
# To JSON, 3.0 is the same number as 3; msgspec's `int` would refuse it.
MaxAttempts = Annotated[float, Meta(ge=1, le=10, multiple_of=1)]
TimeoutSeconds = Annotated[float, Meta(gt=0)]


class ChatMessage(Struct):
    """One message of a chat. Fields that are not named here go to the executor as they are."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class Options(Struct):
    """What the executor should know. What the service does not know goes to it as it is."""

    model: Model | None = None


Messages = Annotated[list[ChatMessage], Meta(min_length=1)]
Input = Annotated[
    str | Messages | dict[str, Any],
    Meta(description="A text, a list of chat messages, or any JSON object."),
]


class TaskSubmission(Struct, forbid_unknown_fields=True):
    """A task to be. `null` counts as left out, except for `input`.

    Numbers are 64-bit integers or finite doubles, and no name of a member holds U+0000.
    """

    input: Input
    options: Options | None = None
    timeout_seconds: Annotated[
        TimeoutSeconds | None,
        Meta(description="Of one attempt; at most `inference.timeout_seconds`."),
    ] = None
    max_attempts: Annotated[MaxAttempts | None, Meta(description="How many attempts may fail.")] = (
        None
    )
    metadata: Metadata | None = None


# --- what is answered --------------------------------------------------------------------------

Timestamp = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
        description="RFC 3339, UTC, six digits.",
        extra_json_schema={"format": "date-time"},
        examples=["2023-10-24T08:15:30.123456Z"],
    ),
]


class TaskCreated(Struct, frozen=True):
    """The task is stored, and will run."""

    task_id: str
    status: TaskStatus


class TaskResult(Struct, frozen=True):
    """What the executor gave back: any JSON value, a string for text models."""

    output: Any


class TaskView(Struct, frozen=True):
    """A task. What has no value yet is null.

    `attempt` counts starts, `failures` those that failed; `done` says whether anything will change.
    """

    task_id: str
    status: TaskStatus
    result: Raw | None
    created_at: Timestamp
    started_at: Timestamp | None
    completed_at: Timestamp | None
    error: TaskError | None
    done: bool
    executor: str
    model: str | None
    attempt: int
    failures: int
    max_attempts: int
    timeout_seconds: float
    usage: Usage | None
    metadata: Mapping[str, str]


def task_view(task: Task) -> TaskView:
    """The task as clients see it; the stored JSON text of the result goes out as it is."""
    return TaskView(
        task_id=task.id,
        status=task.status,
        result=None if task.result is None else Raw(task.result),
        created_at=timestamp(task.created_at),
        started_at=None if task.started_at is None else timestamp(task.started_at),
        completed_at=None if task.completed_at is None else timestamp(task.completed_at),
        error=task.error,
        done=task.done,
        executor=task.executor,
        model=task.model,
        attempt=task.attempt,
        failures=task.failures,
        max_attempts=task.max_attempts,
        timeout_seconds=task.timeout_seconds,
        usage=task.usage,
        metadata=task.metadata,
    )


_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC throughout; "Z" is put behind it


def timestamp(instant: int) -> str:
    """An instant (microseconds since the epoch) as RFC 3339, UTC, always with six digits."""
    moment = _EPOCH + timedelta(microseconds=instant)
    return moment.isoformat(timespec="microseconds") + "Z"


class Health(Struct, frozen=True):
    """Whether the service can do its work. `tasks_count` is null if the store cannot tell."""

    status: Annotated[str, Meta(extra_json_schema={"enum": ["healthy", "unhealthy"]})]
    version: str
    tasks_count: int | None
    app_name: str


class Liveness(Struct, frozen=True):
    """The process answers."""

    status: Annotated[str, Meta(extra_json_schema={"enum": ["alive"]})]


class ReadinessView(Struct, frozen=True):
    """Whether this process takes work, and what keeps it from that, by name."""

    status: Annotated[str, Meta(extra_json_schema={"enum": ["ready", "not_ready"]})]
    faults: Mapping[str, str]


class Links(Struct, frozen=True):
    """Where to go from here."""

    app_name: str
    create: str = "/api/v1/task/inference"
    health: str = "/api/v1/health"
    documentation: str = "/schema"
    openapi: str = "/schema/openapi.json"


class Fault(Struct, frozen=True):
    """One thing that is wrong. `path` is a JSON pointer into the body, or a parameter's name."""

    path: str
    message: str


class Problem(Struct, frozen=True):
    """Why a request was refused (RFC 9457). Programs go by `code`; `errors` is always there."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[Fault]


encode = msgspec.json.Encoder().encode
