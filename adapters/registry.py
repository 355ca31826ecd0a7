"""A name from the settings into the factory of a store or an executor.

A name is an entry point of the group `task_agent.stores` or `task_agent.executors` (those of this
project are entry points like any plug-in's), or a reference `package.module:attribute`.
"""

import difflib
import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from msgspec import Struct

from domain.ports import ExecutorFactory, StoreFactory

STORES: Final = "task_agent.stores"
EXECUTORS: Final = "task_agent.executors"


class UnknownAdapter(LookupError):
    """No factory is to be had under this name. The text is for the person who wrote it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name!r} {reason}")
        self.name = name


def store_factory(name: str) -> StoreFactory:
    """The factory of stores that `name` stands for. Raises `UnknownAdapter`."""
    found = _factory(name, STORES)
    if not hasattr(found, "is_shared"):
        raise UnknownAdapter(name, "is no factory of stores: it does not say `is_shared`")
    return cast("StoreFactory", found)


def executor_factory(kind: str) -> ExecutorFactory:
    """The factory of executors that `kind` stands for. Raises `UnknownAdapter`."""
    return cast("ExecutorFactory", _factory(kind, EXECUTORS))


def executor_kinds() -> list[str]:
    """The names under which executors are to be had."""
    return sorted(entry_points(group=EXECUTORS).names)


def _factory(name: str, group: str) -> Any:
    found = _by_reference(name) if ":" in name else _by_entry_point(name, group)
    options_type = getattr(found, "options_type", None)
    if not (isinstance(options_type, type) and issubclass(options_type, Struct)):
        raise UnknownAdapter(name, "is no factory: it has no `options_type` that is a Struct")
    return found


def _by_reference(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise UnknownAdapter(name, "is not of the form package.module:attribute")
    return _loaded(EntryPoint(name=name, value=name, group=""), name)


def _by_entry_point(name: str, group: str) -> Any:
    known = {entry_point.name: entry_point for entry_point in entry_points(group=group)}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UnknownAdapter(
            name,
            f"is not known; {hint}known: {', '.join(sorted(known))}, or package.module:attribute",
        )
    return _loaded(known[name], name)


def _loaded(entry_point: EntryPoint, name: str) -> Any:
    importlib.invalidate_caches()
    try:
        return entry_point.load()
    except Exception as error:  # a plug-in's module may fail in any way while it is imported
        reason = f"cannot be loaded: {type(error).__name__}: {error}"
        raise UnknownAdapter(name, reason) from error
