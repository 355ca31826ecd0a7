"""Who calls: API keys, and how often each of them may ask.

A key is a random text that only its holder has; the settings have its SHA-256. That is enough, for
nobody can guess 256 random bits however fast the hash is (NIST SP 800-63B asks for slow hashes
where people choose the secret).
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from domain.service import Caller
from domain.task import ANONYMOUS
from entrypoints.http.errors import RATE_LIMITED, UNAUTHORIZED, Refusal, retry_in
from settings.conversion import convert
from settings.schema import ApiKey

OPEN_PATHS: Final = frozenset({"/", "/livez", "/readyz", "/api/v1/health", "/openapi.json"})
OPEN_PREFIX: Final = "/schema"

_PREFIX: Final = "ta_"  # so that scanners for leaked secrets can know one
_RANDOM_BYTES: Final = 32
_NOBODY: Final = Caller(ANONYMOUS)


class Access:
    """Tells who sent a request, or why it is refused."""

    def __init__(self, keys: Sequence[ApiKey], monotonic: Callable[[], float]) -> None:
        """Where there are no keys, everybody is the same anonymous caller."""
        self._holders = [_Holder(key, monotonic) for key in keys]

    def caller(self, path: str, headers: Mapping[bytes, bytes]) -> Caller | Refusal:
        """Who sent the request with these headers; counts it against the rate of its key."""
        if not self._holders or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return _NOBODY
        holder = self._holder_of(_key_in(headers))
        if holder is None:
            return UNAUTHORIZED
        wait = holder.seconds_to_wait()
        if wait == 0.0:
            return holder.caller
        return replace(RATE_LIMITED, retry_after=retry_in(wait))

    def _holder_of(self, key: bytes) -> "_Holder | None":
        """Compares with every key, in the same time wherever they differ."""
        digest = hashlib.sha256(key).digest()
        found = None
        for holder in self._holders:
            if hmac.compare_digest(holder.digest, digest):
                found = holder
        return found


class _Holder:
    """A key that is known, and how many requests it has left for now.

    A bucket of tokens: it holds those of one second, at least one, and fills by and by.
    """

    def __init__(self, key: ApiKey, monotonic: Callable[[], float]) -> None:
        self.caller = Caller(key.name, is_admin=key.admin)
        self.digest = bytes.fromhex(key.sha256)
        self._rate = key.requests_per_second
        self._most = max(1.0, self._rate or 0.0)
        self._left = self._most
        self._monotonic = monotonic
        self._filled_at = monotonic()

    def seconds_to_wait(self) -> float:
        """0 when the request may go on, and is counted; else the seconds until one may."""
        if self._rate is None:
            return 0.0
        now = self._monotonic()
        self._left = min(self._most, self._left + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._left < 1.0:
            return (1.0 - self._left) / self._rate
        self._left -= 1.0
        return 0.0


def new_key(name: str) -> tuple[str, ApiKey]:
    """A new key for its holder, and the entry for the settings. Raises `SettingsError`."""
    text = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    values = {"name": name, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return text, convert(values, ApiKey, "NAME", {"name": "the command line"})


def _key_in(headers: Mapping[bytes, bytes]) -> bytes:
    """The key that was sent; an empty one where there is none, or two that differ."""
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    sent = {bearer.strip()} if scheme.lower() == b"bearer" else set()
    if b"x-api-key" in headers:
        sent.add(headers[b"x-api-key"].strip())
    return sent.pop() if len(sent) == 1 else b""
