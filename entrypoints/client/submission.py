"""What is sent to the service: a task from a text, or from a line of a file."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import DecodeError, Raw

Fields = Mapping[str, Any]
"""Fields of a submission beside its input."""


def given_fields(model: str | None, options: Mapping[str, Any], priority: int | None) -> Fields:
    """What the options of the command ask for."""
    options = dict(options) if model is None else {**options, "model": model}
    given = {"options": options or None, "priority": priority}
    return {name: value for name, value in given.items() if value is not None}


def body_of(text: str, given: Fields) -> bytes:
    """The submission of this text."""
    return msgspec.json.encode({"input": text, **given})


def body_of_line(line: bytes, given: Fields) -> bytes:
    """The submission that a line asks for, whose own fields and options win over those given.

    A line that is no submission stays as it is: what is wrong with it is for the service to say.
    """
    try:
        asked = msgspec.json.decode(line, type=str | dict[str, Raw])
        if isinstance(asked, str):
            return body_of(asked, given)
        return msgspec.json.encode({**given, **asked, **_options(asked, given)})
    except DecodeError:
        return line


def _options(asked: Mapping[str, Raw], given: Fields) -> dict[str, Any]:
    """The options of both, if both have some."""
    own = msgspec.json.decode(asked.get("options", b"null"), type=dict[str, Raw] | None)
    return {"options": {**given["options"], **own}} if own and "options" in given else {}
