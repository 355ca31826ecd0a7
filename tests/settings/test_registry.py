"""A name from the settings into a factory, or a message for the person who wrote it."""

import pytest

from adapters.executors.echo import EchoExecutor
from adapters.registry import UnknownAdapter, executor_factory, store_factory
from adapters.stores.memory import MemoryTaskStore


def test_a_name_is_an_entry_point():
    assert store_factory("memory") is MemoryTaskStore
    assert executor_factory("echo") is EchoExecutor


def test_a_reference_is_imported():
    assert store_factory("adapters.stores.memory:MemoryTaskStore") is MemoryTaskStore
    assert executor_factory("adapters.executors.echo:EchoExecutor") is EchoExecutor


def refusal(name):
    with pytest.raises(UnknownAdapter) as caught:
        store_factory(name)
    return str(caught.value)


def test_an_unknown_name_lists_what_is_known_and_what_was_meant():
    message = refusal("sqllite")
    assert message.startswith("'sqllite' is not known; did you mean sqlite? known: ")
    assert "memory" in message
    assert "package.module:attribute" in message


def test_a_store_is_no_executor():
    assert "'echo' is not known" in refusal("echo")


@pytest.mark.parametrize("name", ["a:", ":b", ":"])
def test_half_a_reference_is_told(name):
    assert refusal(name) == f"{name!r} is not of the form package.module:attribute"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_package.module:Store", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("adapters.stores.memory:Nothing", "AttributeError"),
        ("adapters..memory:Store", "cannot be loaded"),
    ],
)
def test_what_cannot_be_imported_is_told_with_the_reason(name, reason):
    assert f"{name!r} cannot be loaded: " in refusal(name)
    assert reason in refusal(name)


def test_a_plug_in_that_fails_while_it_is_imported_is_told(tmp_path, monkeypatch):
    (tmp_path / "broken_plug_in.py").write_text("raise OSError('no such device')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "cannot be loaded: OSError: no such device" in refusal("broken_plug_in:Store")


def test_what_has_no_options_type_is_no_factory():
    assert "is no factory: it has no `options_type`" in refusal("pathlib:Path")


def test_an_executor_is_no_store():
    message = refusal("adapters.executors.echo:EchoExecutor")
    assert "is no factory of stores: it does not say `is_shared`" in message
