"""Every setting there is: names, types, bounds, defaults. Units stand in the names.

`settings/default.yaml` repeats the defaults for people to read; a test keeps the two in step.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

# The upper bounds keep every sum with them inside 64 bits; nobody needs a hundred years.
PositiveSeconds = Annotated[float, Meta(gt=0, le=3_000_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=3_000_000_000)]
Hours = Annotated[float, Meta(ge=0, le=1_000_000)]
AtLeastOne = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]
AtLeastZero = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Reference = Annotated[str, Meta(min_length=1, max_length=300)]
Text = Annotated[str, Meta(min_length=1)]
AdapterOptions = Annotated[dict[str, Any], "checked against the adapter's own Struct, later"]


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the service listens, and how long it takes to stop."""

    host: Annotated[str, Meta(min_length=1, max_length=253)] = "127.0.0.1"
    port: Port = 8000
    drain_seconds: Seconds = 20
    max_body_bytes: AtLeastOne = 1024 * 1024


class InferenceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many tasks, for how long, and how often."""

    max_concurrent_tasks: AtLeastOne = 8
    timeout_seconds: PositiveSeconds = 300
    task_retention_hours: Hours = 24
    max_tasks_count: AtLeastZero = 100_000
    max_pending_tasks: AtLeastOne = 10_000
    max_attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    priority_step_seconds: Seconds = 60
    retry_base_seconds: Seconds = 1
    retry_max_seconds: Seconds = 60
    max_result_bytes: AtLeastOne = 8 * 1024 * 1024
    default_executor: Name = "echo"


class WorkerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Leases, polls, how many crashes a task survives, and where a lone worker is probed."""

    lease_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 30
    poll_seconds: PositiveSeconds = 1
    max_crashes: AtLeastZero = 5
    port: Port | None = None


class RetentionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often finished tasks are swept, besides the check on every create."""

    sweep_seconds: PositiveSeconds = 3600


class StoreSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which store, and the options of the built-in ones; a plug-in's stand under `options`."""

    backend: Reference = "sqlite"
    path: Text = "data/task-agent.db"
    durability: Literal["full", "normal"] = "full"
    min_free_bytes: AtLeastZero | None = None
    dsn: Text | None = None
    pool_size: Annotated[int, Meta(ge=1, le=1000)] = 10
    migrate_on_start: bool = True
    options: AdapterOptions = {}


class ExecutorSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One executor: its kind and what it serves.

    In the files, what its kind understands stands beside these keys; here it is in `options`.
    """

    kind: Reference
    models: list[str] = []
    max_concurrent_tasks: AtLeastOne | None = None
    options: AdapterOptions = {}


def _echo_alone() -> dict[str, ExecutorSettings]:
    return {"echo": ExecutorSettings(kind="echo")}


class ApiKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key, as the SHA-256 of its text in hexadecimal: `task-agent key NAME` makes both.

    `name` owns what is made with the key, and sees nothing else; an admin sees everything.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[!-~]*$")]  # visible ASCII
    sha256: Annotated[str, Meta(min_length=64, max_length=64, pattern="^[0-9a-f]*$")]
    admin: bool = False
    requests_per_second: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None


class SecuritySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may talk to the service.

    No keys: nobody is asked for one. No hosts: loopback names, or any where keys are asked for. No
    origins: no foreign one.
    """

    api_keys: list[ApiKey] = []
    allow_anonymous: bool = False
    allowed_hosts: list[str] = []
    allowed_origins: list[str] = []


class LoggingSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, and in which form (`auto`: colours on a terminal, JSON elsewhere)."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one process."""

    app_name: Name = "task-agent"
    dev_mode: bool = False
    server: ServerSettings = field(default_factory=ServerSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    executors: dict[Name, ExecutorSettings] = field(default_factory=_echo_alone)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
