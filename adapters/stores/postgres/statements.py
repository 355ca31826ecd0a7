"""The SQL of this store: a file per statement, named after what it does."""

from importlib.resources import files
from typing import Final


def _read(name: str) -> str:
    return files("adapters.stores.postgres").joinpath(f"{name}.sql").read_text("utf-8")


SUBMIT_TASKS: Final = _read("submit_tasks")
GET_TASK: Final = _read("get_task")
COUNT_TASKS: Final = _read("count_tasks")
CHECK_STORE: Final = _read("check_store")
PURGE_TASKS: Final = _read("purge_tasks")
CLAIM_TASKS: Final = _read("claim_tasks")
RENEW_LEASES: Final = _read("renew_leases")
SETTLE_ATTEMPTS: Final = _read("settle_attempts")
RECLAIM_TASKS: Final = _read("reclaim_tasks")
REROUTE_TASKS: Final = _read("reroute_tasks")
