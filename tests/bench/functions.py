"""What the `python_callable` executors of the bench call."""

from typing import Any


def answer(_input: Any, _options: Any) -> str:
    return "Hello"


async def answer_at_once(_input: Any, _options: Any) -> str:
    return "Hello"
