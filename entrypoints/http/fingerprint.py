"""Whether two bodies ask for the same: they do when they are the same JSON value.

The order of members, white space, and how a number is written (1, 1.0, 1e0) make no difference.
"""

from hashlib import sha256
from typing import Final

import msgspec

from domain.inference import LARGEST_INTEGER


def fingerprint(text: bytes) -> bytes:
    """Stands for the value of this JSON text, which was found to be good before."""
    return sha256(_encode(_decode(text))).digest()


def _number(digits: str) -> float:
    """A number that was not written as an integer; as one, where it is one."""
    number = float(digits)
    return int(number) if number.is_integer() and abs(number) <= LARGEST_INTEGER else number


_decode: Final = msgspec.json.Decoder(float_hook=_number).decode
_encode: Final = msgspec.json.Encoder(order="deterministic").encode
