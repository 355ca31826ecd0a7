"""Everything that can go wrong, in words of the domain. None of it knows HTTP.

    TaskAgentError
    ├── StoreError
    │   ├── StoreUnavailable    it does not answer now; a later try may succeed
    │   ├── StorageFull         it takes no new tasks until there is room again
    │   └── StoreUnusable       it cannot be opened at all: locked, corrupt, of a newer schema
    ├── ExecutorUnusable        an executor cannot be opened at all: an option of it is wrong
    └── ExecutorError           an attempt failed; says whether another may succeed
        ├── ExecutorUnavailable the backend is busy, or broke down
        │   └── ExecutorUnreachable there was no connection to it: nothing was begun
        ├── ExecutorCrashed     the process that ran the attempt died
        ├── ExecutorFailed      the backend answered, but not with a result
        ├── UpstreamRejected    the backend refused this very request
        ├── InvalidInput        the executor cannot take this kind of input
        ├── ResultTooLarge      the result passed `inference.max_result_bytes`
        └── ResultNotStorable   the result is not JSON

Outcomes that are expected (a full queue, an unknown id) are values, not errors.
"""

from typing import ClassVar


class TaskAgentError(Exception):
    """The root of all errors that this service raises on purpose."""


class StoreError(TaskAgentError):
    """The store could not do what it was asked."""


class StoreUnavailable(StoreError):
    """The store does not answer now. What was asked for happened whole or not at all."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the store is unavailable: {reason}")


class StorageFull(StoreError):
    """There is too little room to accept another task; everything else goes on."""

    def __init__(self, free_bytes: int, needed_bytes: int) -> None:
        super().__init__(
            f"the store takes no tasks: {free_bytes} bytes are free, {needed_bytes} must stay free"
        )
        self.free_bytes = free_bytes
        self.needed_bytes = needed_bytes


class StoreUnusable(StoreError):
    """The store cannot be opened, and waiting will not help. It was left as it was found."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"the store {where} cannot be used: {reason}")


class ExecutorUnusable(TaskAgentError):
    """The executor cannot be opened with this `option`, and waiting will not help.

    The text begins with what the option was, and is for the person who wrote it.
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(reason)
        self.option = option


class ExecutorError(TaskAgentError):
    """One attempt failed.

    `code` is the public `error.code` of a task that ends with this error. `retry_after_seconds`
    is what the backend asked for, None when it did not say.
    """

    code: ClassVar[str]
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """`retryable` None: as is usual for this kind of error."""
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        if retryable is not None:
            self.retryable = retryable


class ExecutorUnavailable(ExecutorError):
    """No connection, a busy backend (429) or one that broke down (5xx). Usually retried."""

    code = "executor_unavailable"
    retryable = True


class ExecutorUnreachable(ExecutorUnavailable):
    """No connection to the backend came about, so nothing was begun there."""


class ExecutorCrashed(ExecutorError):
    """The process that ran this attempt, and no other, died. Counts as a crash, not a failure."""

    code = "worker_lost"
    retryable = True


class ExecutorFailed(ExecutorError):
    """The backend's answer ended early or made no sense; retried unless told otherwise."""

    code = "executor_error"
    retryable = True


class UpstreamRejected(ExecutorError):
    """The backend refused this request (a 4xx that no repetition mends). Final."""

    code = "upstream_rejected"


class InvalidInput(ExecutorError):
    """The executor cannot work on an input or options of this shape. Final."""

    code = "invalid_input"


class ResultTooLarge(ExecutorError):
    """The output passed the configured limit; the attempt was stopped there. Final."""

    code = "result_too_large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the result is larger than {max_bytes} bytes")


class ResultNotStorable(ExecutorError):
    """The output has no JSON form (NaN, a lone surrogate, a foreign object). Final."""

    code = "result_not_storable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the result cannot be stored as JSON: {reason}")
