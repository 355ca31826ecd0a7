"""What the head of a request says beside where it goes: who asks, and how it is to be answered."""

import re
from typing import Final

from litestar.types import Scope

from domain.service import Caller
from entrypoints.http.errors import INVALID_REQUEST, Refused
from entrypoints.http.schemas import IDEMPOTENCY_KEY, Fault

LONGEST_WAIT_SECONDS: Final = 60
_KEY: Final = re.compile(rb"[!-~]{1,255}")
# A quoted text that never ends is taken to reach to the end.
_QUOTED: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)')
_TAG: Final = re.compile(rb'"[^"]*"')


def caller_of(scope: Scope) -> Caller:
    """Who asks, as the edge found out."""
    caller: Caller = scope["state"]["caller"]
    return caller


def idempotency_key(scope: Scope) -> str | None:
    """The key under which this request may be repeated. Raises `Refused` for a bad one."""
    key = scope["state"]["headers"].get(b"idempotency-key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        message = "Expected one key of 1 … 255 visible ASCII characters"
        raise Refused(INVALID_REQUEST, faults=[Fault(IDEMPOTENCY_KEY, message)])
    return str(key, "ascii")


def seconds_to_wait(scope: Scope) -> int | None:
    """What `Prefer: wait=N` asks for (RFC 7240), at most a minute.

    Other preferences, and what is none, count as not sent; of two waits the first counts.
    """
    preferences = scope["state"]["headers"].get(b"prefer")
    if preferences is None:
        return None
    for preference in _QUOTED.sub(b"", preferences).split(b","):
        name, _, value = preference.partition(b";")[0].partition(b"=")
        if name.strip().lower() == b"wait":
            return _seconds(value.strip())
    return None


def _seconds(digits: bytes) -> int | None:
    if not digits.isdigit():
        return None
    return min(LONGEST_WAIT_SECONDS, int(digits.lstrip(b"0")[:3] or b"0"))


def has_already(scope: Scope, tag: bytes) -> bool:
    """Whether the client has the answer that this tag stands for (`If-None-Match`)."""
    known = scope["state"]["headers"].get(b"if-none-match")
    if known is None:
        return False
    return known.strip() == b"*" or tag in _TAG.findall(known)
