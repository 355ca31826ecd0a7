"""JSON pointers (RFC 6901): places in a JSON value."""

import re
from collections.abc import Sequence
from typing import Any, Final

_FORM: Final = re.compile(r"(/([^~/]|~[01])*)*")
_INDEX: Final = re.compile(r"0|[1-9][0-9]*")


class Pointer:
    """One place. The empty text is the whole value."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is no pointer."""
        if not _FORM.fullmatch(text):
            raise ValueError(f"{text!r} is no JSON pointer, which is empty or begins with /")
        self.text = text
        self._names = [name.replace("~1", "/").replace("~0", "~") for name in text.split("/")[1:]]

    def get(self, value: Any) -> Any:
        """What stands there. Raises LookupError where there is no such place."""
        for name in self._names:
            value = value[_key(value, name)]  # a KeyError is a LookupError
        return value

    def put(self, value: Any, new: Any) -> Any:
        """A value like this one, with `new` there; objects on the way are made where missing.

        Raises LookupError where the way leads through something else.
        """
        return _put(value, self._names, new)


def _put(value: Any, names: Sequence[str], new: Any) -> Any:
    if not names:
        return new
    if isinstance(value, dict):
        return {**value, names[0]: _put(value.get(names[0], {}), names[1:], new)}
    index = _key(value, names[0])
    return [*value[:index], _put(value[index], names[1:], new), *value[index + 1 :]]


def _key(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return name
    if isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
        return int(name)
    raise LookupError(name)
