"""Where a list goes on: opaque to clients, and bound to the list that it came from.

A cursor is a position and a checksum over it, over who sees the list, its filters and its order. So
one that was cut, altered, or belongs to another list is told. The checksum is no signature: it
needs no key, which nodes would have to share, because a cursor grants nothing. Whoever makes one up
sees a list of their own tasks from another place on.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Final

import msgspec

from domain.query import Position, TaskQuery

_POSITION: Final = struct.Struct(">qq")
_CHECK_BYTES: Final = 14  # 30 bytes in all, which base64 writes without padding


def cursor_of(position: Position, query: TaskQuery) -> str:
    """The cursor with which the list of this query goes on at this position."""
    packed = _POSITION.pack(position.created_at, position.number)
    return urlsafe_b64encode(packed + _check(packed, query)).decode()


def position_of(cursor: str, query: TaskQuery) -> Position | None:
    """The position of a cursor; None for one that does not fit, or that is none of ours."""
    try:
        packed = urlsafe_b64decode(cursor)[: _POSITION.size]
        position = Position(*_POSITION.unpack(packed))
    except (ValueError, struct.error):
        return None
    return position if cursor_of(position, query) == cursor else None


def _check(packed: bytes, query: TaskQuery) -> bytes:
    bound_to = msgspec.json.encode(
        [
            query.owner,
            sorted(query.statuses),
            query.executor,
            query.model,
            query.created_after,
            query.created_before,
            query.newest_first,
        ]
    )
    return blake2b(packed + bound_to, digest_size=_CHECK_BYTES).digest()
