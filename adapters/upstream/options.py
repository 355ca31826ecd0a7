"""What every executor with a backend behind HTTP can be told about talking to it."""

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

PositiveSeconds = Annotated[float, Meta(gt=0)]
Urls = str | Annotated[list[str], Meta(min_length=1)]


class UpstreamOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach a backend, and within which limits.

    `ca_file` is a file of certificates (PEM); backends that they vouch for, and no others, are then
    trusted. `first_byte_timeout_seconds` counts from the request to the head of the answer,
    `silence_timeout_seconds` between two pieces of it. `total_timeout_seconds` is there for
    whoever sets no timeout on tasks. `max_response_bytes` None: 128 bytes for each one that the
    result may have, and 1 MiB, for a streamed token of four letters easily takes 400.
    """

    headers: dict[str, str] = {}
    ca_file: str | None = None
    connect_timeout_seconds: PositiveSeconds = 10
    first_byte_timeout_seconds: PositiveSeconds = 120
    silence_timeout_seconds: PositiveSeconds = 120
    total_timeout_seconds: PositiveSeconds = 3600
    max_response_bytes: Annotated[int, Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        if not _is_header_text([*self.headers, *self.headers.values()]):
            raise ValueError("headers must not have control characters")
        if self.ca_file is not None:
            trusting(self.ca_file)


def as_list(urls: Urls) -> list[str]:
    """One URL, or several, as they stand in the settings."""
    return [urls] if isinstance(urls, str) else urls


def check_urls(urls: Iterable[str], name: str, *, may_have_query: bool = False) -> None:
    """Raise ValueError for what is no URL of a backend. `name` is that of the setting."""
    for text in urls:
        url = urlsplit(text)
        if url.scheme not in {"http", "https"} or not url.hostname or url.port == 0:
            raise ValueError(f"{name} must start with http:// or https:// and a host")
        if url.username is not None or url.fragment or (url.query and not may_have_query):
            raise ValueError(f"{name} must not have a user, a query or a fragment")


def check_key(api_key: str | None) -> None:
    """Raise ValueError for a key that cannot stand in a header."""
    if not _is_header_text([api_key or ""]):
        raise ValueError("api_key must not have control characters")


def trusting(ca_file: str) -> ssl.SSLContext:
    """Trust in the certificates of this file alone. Raises ValueError where it has none."""
    if not Path(ca_file).is_file():
        raise ValueError(f"ca_file {ca_file!r} does not exist")
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"ca_file {ca_file!r} has no certificates (PEM)") from error


def _is_header_text(texts: Iterable[str]) -> bool:
    return all(text.isprintable() for text in texts)
