"""The shapes of the API, as they stand in the OpenAPI document.

Answers have no defaults: a default would drop its field from `required`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from domain.inference import LARGEST_INTEGER, Usage
from domain.task import AttemptOutcome, TaskError, TaskStatus

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
Priority = Annotated[float, Meta(ge=-10, le=10, multiple_of=1)]
# The bounds keep every sum with them inside 64 bits, and every instant in four-digit years.
DelaySeconds = Annotated[float, Meta(ge=0, le=3_000_000_000)]
DeadlineSeconds = Annotated[float, Meta(gt=0, le=3_000_000_000)]
RunAt = Annotated[datetime, Meta(tz=True)]
RUN_AT_YEARS: Final = range(1970, 9999)


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
    priority: Annotated[
        Priority | None,
        Meta(description="One step is worth `inference.priority_step_seconds` of waiting."),
    ] = None
    delay_seconds: Annotated[
        DelaySeconds | None, Meta(description="It starts no sooner than this after now.")
    ] = None
    run_at: Annotated[
        RunAt | None, Meta(description="It starts no sooner; not beside `delay_seconds`.")
    ] = None
    deadline_seconds: Annotated[
        DeadlineSeconds | None,
        Meta(description="It must have ended by then, waiting included; else it fails."),
    ] = None


MOST_IN_A_BATCH: Final = 1_000


class BatchSubmission(Struct, forbid_unknown_fields=True):
    """Tasks to be, of which each is taken or refused by itself."""

    tasks: Annotated[list[TaskSubmission], Meta(min_length=1, max_length=MOST_IN_A_BATCH)]


IDEMPOTENCY_KEY: Final = "Idempotency-Key"

CreationBound = Annotated[
    datetime, Meta(tz=True, description="Exclusive; in UTC or with an offset (`+` is `%2B`).")
]
LIST_CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "status": list(TaskStatus),
    "order": ["desc", "asc"],
    "include": ["input", "result", "input,result", "result,input"],
}
LIST_PARAMETERS: Final[Mapping[str, Any]] = {
    "executor": Annotated[
        str, Meta(max_length=64, pattern=_NO_NUL, description="Tasks of this executor.")
    ],
    "model": Annotated[Model, Meta(description="Tasks of this model.")],
    "created_after": CreationBound,
    "created_before": CreationBound,
    "limit": Annotated[int, Meta(ge=1, le=100, description="Of tasks on a page; else 20.")],
    "cursor": Annotated[str, Meta(description="`next_cursor` of the page before.")],
}

LAST_EVENT_ID: Final = "Last-Event-ID"
AFTER: Final = "after"

EventNumber = Annotated[int, Meta(ge=0, le=LARGEST_INTEGER)]


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


class TaskRetried(Struct, frozen=True):
    """A new task is stored, which asks once more for what `retry_of` asked for."""

    task_id: str
    status: TaskStatus
    retry_of: str


class TaskResult(Struct, frozen=True):
    """What the executor gave back: any JSON value, a string for text models."""

    output: Any


class AttemptView(Struct, frozen=True, gc=False):
    """One start of a task. `ended_at` and `outcome` are null while it runs."""

    number: int
    executor: str
    started_at: Timestamp
    ended_at: Timestamp | None
    outcome: AttemptOutcome | None
    error_code: str | None


class _AnyTask(Struct, frozen=True, kw_only=True, gc=False):
    """What a task shows alone and among others."""

    task_id: str
    status: TaskStatus
    result: Raw | UnsetType | None = UNSET
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
    priority: int
    not_before: Timestamp | None
    cancel_requested_at: Timestamp | None
    expires_at: Timestamp | None
    retry_of: str | None
    attempts: Sequence[AttemptView]


class TaskView(_AnyTask, frozen=True, kw_only=True):
    """A task. What has no value yet is null.

    `attempt` counts starts, `failures` those that failed; `done` says whether anything will change.
    `queue_position` counts from 1, and no further than 1,000; it is null unless the task is pending
    and due. `expires_at` is when it may be removed. `attempts` is the history, the latest last.
    """

    result: Raw | None
    queue_position: int | None
    progress: float | None
    partial_output: str | None


class ListedTask(_AnyTask, frozen=True, kw_only=True):
    """A task among others, without what only the task itself is asked for.

    `input` and `result` are there where `include` asked for them. The rest is as in `TaskView`.
    """

    input: Raw | UnsetType = UNSET


class TaskList(Struct, frozen=True):
    """A page of tasks. It may be short, or empty, though more follow: `has_more` decides."""

    data: list[ListedTask]
    has_more: bool
    next_cursor: str | None


class StatusEvent(Struct, frozen=True):
    """The task is in this status since `at`.

    `attempt` is the one that began or ended with it, 0 where there was none; `outcome` and
    `error_code` say how it ended.
    """

    status: TaskStatus
    attempt: int
    at: Timestamp
    outcome: AttemptOutcome | None
    error_code: str | None


class OutputEvent(Struct, frozen=True):
    """A piece of the output of an attempt; `index` counts them from 0."""

    delta: str
    index: int
    attempt: int


class ProgressEvent(Struct, frozen=True):
    """How far the attempt is: 0 … 1."""

    progress: float
    attempt: int


class LogEvent(Struct, frozen=True):
    """What the executor had to say."""

    message: str
    attempt: int


EVENTS: Final[Mapping[str, type[Struct]]] = {
    "status": StatusEvent,
    "output": OutputEvent,
    "progress": ProgressEvent,
    "log": LogEvent,
    "usage": Usage,
    "done": TaskView,
}
"""What an event of this kind tells."""


class LiveTasks(Struct, frozen=True):
    """How many tasks are not done yet."""

    pending: int
    running: int


class ModelLoad(Struct, frozen=True):
    """How many tasks of a model are not done yet, and what all those cost that completed."""

    pending: int
    running: int
    usage: Usage


class ExecutorLoad(Struct, frozen=True):
    """The same of an executor, and how many workers run its tasks."""

    pending: int
    running: int
    workers: int
    usage: Usage


class QueueLimits(Struct, frozen=True):
    """`max_pending_tasks` holds for all callers together, the other for each process."""

    max_pending_tasks: int
    max_concurrent_tasks: int


class Queue(Struct, frozen=True):
    """What waits and what runs, of what the caller sees.

    `by_model` has the tasks that name no model under an empty name. `usage` is summed over all that
    ever completed, where their backends report it; beyond a thousand models of a caller, new ones
    count as none. `oldest_pending_seconds` is for how long the task has been due that became due
    first. `unserved` names the executors whose tasks wait though no worker runs them.
    """

    by_status: LiveTasks
    by_executor: Mapping[str, ExecutorLoad]
    by_model: Mapping[str, ModelLoad]
    oldest_pending_seconds: float | None
    unserved: list[str]
    limits: QueueLimits


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


class ItemError(Struct, frozen=True):
    """What was wrong with one task of a batch; the fields are as in `Problem`."""

    code: str
    detail: str
    errors: list[Fault]


class TaskNotCreated(Struct, frozen=True):
    """Nothing is stored of this task, and the others of its batch do not mind."""

    error: ItemError


class BatchCreated(Struct, frozen=True):
    """What became of each task of a batch, in the order in which they were sent.

    Each of `data` is a `TaskCreated` or a `TaskNotCreated`; msgspec has no such type.
    """

    data: Sequence[Any]


encode = msgspec.json.Encoder().encode
