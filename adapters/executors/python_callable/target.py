"""A function by its name `package.module:function`: found, and called with what it takes."""

import importlib
import inspect
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from adapters.executors.python_callable.context import Context
from adapters.executors.python_callable.outcome import worded


class NotUsable(Exception):
    """There is no such function, or not one that can be called. The text says why."""


def found(reference: str) -> Callable[..., Any]:
    """What the reference stands for. Imports its module, whatever that does.

    Raises `NotUsable`.
    """
    module, _, path = reference.partition(":")
    if not module or not path:
        raise NotUsable("is not of the form package.module:function")
    try:
        function = attrgetter(path)(importlib.import_module(module))
    except BaseException as error:  # a module may do anything while it is imported
        raise NotUsable(f"cannot be imported: {worded(error)}") from error
    if not callable(function):
        raise NotUsable(f"is a {type(function).__name__}, which cannot be called")
    return function  # type: ignore[no-any-return]  # attrgetter gives Any


def is_async(function: Callable[..., Any]) -> bool:
    """Whether it is, or its `__call__` is, an `async def`, also one that yields."""
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (function, type(function).__call__)
    )


class Target:
    """The function that attempts run."""

    def __init__(self, reference: str) -> None:
        """Raises `NotUsable`."""
        self._function = found(reference)
        self._takes_context = _takes_context(self._function)
        self.is_async = is_async(self._function)

    def call(self, value: Any, options: dict[str, Any], context: Context) -> Any:
        """Call it. What it gives may be a generator, or a coroutine, that has not started yet."""
        if self._takes_context:
            return self._function(value, options, context)
        return self._function(value, options)


def _takes_context(function: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # one written in C may not tell
        return False
    if _can_take(signature, 3):
        return True
    if _can_take(signature, 2):
        return False
    raise NotUsable(f"takes {signature}; allowed: (input, options) or (input, options, context)")


def _can_take(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True
