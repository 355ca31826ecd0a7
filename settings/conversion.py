"""Plain values into frozen Structs, or one error that a person can act on.

The first fault ends it with a `SettingsError`: the key, where its value came from, what was found
and what is allowed. A value that may be a secret is never shown.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct, inspect
from msgspec.structs import FieldInfo, fields

from settings.schema import AdapterOptions, ExecutorSettings, Settings

Sources = Mapping[str, str]
"""Where each value came from, in words, by its dotted key in lower case."""

T = TypeVar("T", bound=Struct)


class SettingsError(Exception):
    """The settings cannot be used. The text is one message for the person who wrote them."""


class VariableText(str):
    """A value from the environment: text, or JSON, as the type of its key will decide."""

    __slots__ = ()


def convert(values: Mapping[str, Any], type_: type[T], key: str, sources: Sources) -> T:
    """Make a `type_` of what stands under the dotted `key` ("" for all settings).

    Raises `SettingsError` for the first key that is unknown, missing, of the wrong type or out of
    range.
    """
    known = {field.encode_name: field for field in fields(type_)}
    for name in values:
        if name not in known:
            raise unknown_key(join(key, name), known, source_of(join(key, name), sources))
    for name, field in known.items():
        if name not in values and field.default is field.default_factory is NODEFAULT:
            raise SettingsError(
                f"{join(key, name)} is missing (the rest of {key} is from"
                f" {source_of(key, sources)}); allowed: {_allowed(field.type)}"
            )
    fitting = {known[n].name: _field(values[n], known[n], key, sources) for n in values}
    try:
        return type_(**fitting)
    except ValueError as error:  # of the Struct itself; the first word is a key, if one is at fault
        name = str(error).partition(" ")[0]
        at = join(key, name) if name in known else key
        raise SettingsError(f"{at} (from {source_of(at, sources)}): {error}") from error


def join(key: str, name: str) -> str:
    """The dotted key of `name` under `key`."""
    return f"{key}.{name}" if key else name


def source_of(key: str, sources: Sources) -> str:
    """Where the value of `key` came from; that of the nearest section above it, if it has none."""
    key = _ITEM.sub("", key.lower())
    while key and key not in sources:
        key = key.rpartition(".")[0]
    return sources.get(key, "the defaults")


_ITEM = re.compile(r"\[\d+\]")


def unknown_key(key: str, known: Iterable[str], source: str) -> SettingsError:
    """The error for a key that does not exist, with the one that was probably meant."""
    section, _, name = key.rpartition(".")
    names = set(known)
    if re.fullmatch(r"executors\.[^.]+", section):
        names |= {field.name for field in fields(ExecutorSettings)} - {"options"}
    meant = difflib.get_close_matches(name.lower(), sorted(names), 1, 0.5) or _nested(key)
    hint = f" did you mean {meant[0]}?" if meant else ""
    return SettingsError(f"{key} (from {source}) is not a setting;{hint} {_list(section, names)}")


def masked(key: str, value: object) -> object:
    """The value as it may be shown: secrets replaced by `***`, whatever stands under a header."""
    match value:
        case Mapping():
            return {name: masked(join(key, str(name)), item) for name, item in value.items()}
        case list():
            return [masked(key, item) for item in value]
        case None | bool():
            return value
        case _ if _SECRET_KEY.search(key):
            return "***"
        case VariableText():
            return masked(key, from_json(value))
        case str():
            return _URL_PASSWORD.sub(r"\1***@", value)
        case _:
            return value


_SECRET_KEY = re.compile(
    r"key\b|sha256|password|secret|token\b|credential|authorization|\bheaders\.", re.IGNORECASE
)
_URL_PASSWORD = re.compile(r"(://[^/@:\s]*:)\S*@")
_SHOWN_CHARACTERS = 100


def _field(value: Any, field: FieldInfo, section: str, sources: Sources) -> Any:
    key = join(section, field.encode_name)
    if field.type == AdapterOptions and isinstance(value, dict):
        return value  # stays as it is until the adapter's own Struct is known
    return _value(value, field.type, key, sources)


def _value(value: Any, type_: Any, key: str, sources: Sources) -> Any:
    nested = _struct_in(type_)
    if nested is None:
        return _leaf(value, type_, key, sources)
    if get_origin(type_) is list:
        return _items(value, type_, nested, key, sources)
    if not isinstance(value, Mapping):
        raise _wrong(value, type_, key, sources)
    if get_origin(type_) is not dict:
        return convert(value, nested, key, sources)
    return {
        _leaf(name, get_args(type_)[0], join(key, name), sources): _value(
            item, nested, join(key, name), sources
        )
        for name, item in value.items()
    }


def _items(
    value: Any, type_: Any, nested: type[Struct], key: str, sources: Sources
) -> list[Struct]:
    items = _typed(value, type_)
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise _wrong(value, type_, key, sources)
    return [convert(item, nested, f"{key}[{n}]", sources) for n, item in enumerate(items)]


def _struct_in(type_: Any) -> type[Struct] | None:
    """The Struct that `type_` is, or is a mapping or a list of."""
    inner = get_args(type_)[-1] if get_origin(type_) in (dict, list) else type_
    return inner if isinstance(inner, type) and issubclass(inner, Struct) else None


def _leaf(value: Any, type_: Any, key: str, sources: Sources) -> Any:
    try:
        converted = msgspec.convert(_typed(value, type_), type_)
    except msgspec.ValidationError:
        raise _wrong(value, type_, key, sources) from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise _wrong(value, type_, key, sources)
    return converted


def _typed(value: Any, type_: Any) -> Any:
    """The value with every text of a variable in it taken for what `type_` wants it to be."""
    match value:
        case dict():
            of_items = (get_args(type_) or (Any, Any))[-1]
            return {name: _typed(item, of_items) for name, item in value.items()}
        case VariableText() if _wants_list_or_text(type_) and isinstance(from_json(value), list):
            return from_json(value)
        case VariableText() if _wants_text(inspect.type_info(type_)):
            return str(value)
        case VariableText():
            return from_json(value)
        case _:
            return value


def _wants_text(info: inspect.Type) -> bool:
    if isinstance(info, inspect.UnionType):
        return any(_wants_text(each) for each in info.types)
    if isinstance(info, inspect.LiteralType):
        return all(isinstance(each, str) for each in info.values)
    return isinstance(info, inspect.StrType)


def _wants_list_or_text(type_: Any) -> bool:
    info = inspect.type_info(type_)
    each = info.types if isinstance(info, inspect.UnionType) else ()
    return any(isinstance(one, inspect.ListType) for one in each)


def from_json(text: str) -> Any:
    """The number, boolean, list or mapping that the text is in JSON; anything else is text."""
    try:
        value = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return str(text)
    return str(text) if isinstance(value, str) else value


def _wrong(value: Any, type_: Any, key: str, sources: Sources) -> SettingsError:
    return SettingsError(
        f"{key} (from {source_of(key, sources)}) is {_shown(key, value, type_)};"
        f" allowed: {_allowed(type_)}"
    )


def _shown(key: str, value: Any, type_: Any) -> str:
    """What was found. Text where a list or mapping belongs may hide a secret: only its length."""
    match value:
        case None:
            return "empty"
        case Mapping():
            return "a mapping"
        case list():
            return "a list that does not fit" if get_origin(type_) is list else "a list"
        case str() if get_origin(type_) in (list, dict) or _struct_in(type_):
            return f"text of {len(value)} characters"
        case str():
            return repr(masked(key, str(value)))[:_SHOWN_CHARACTERS]
        case bool():
            return str(value).lower()
        case _:
            return f"{value}"[:_SHOWN_CHARACTERS]


def _allowed(type_: Any) -> str:
    if get_origin(type_) is list and (nested := _struct_in(type_)):
        return f"a list of mappings with the keys {', '.join(nested.__struct_fields__)}"
    if _struct_in(type_) or get_origin(type_) is dict:
        return "a mapping of keys to values"
    return _worded(inspect.type_info(type_))


def _worded(info: inspect.Type) -> str:
    match info:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"a whole number{_bounds(info)}"
        case inspect.FloatType():
            return f"a number{_bounds(info)}"
        case inspect.StrType():
            return f"text{_length(info)}"
        case inspect.LiteralType():
            return " or ".join(str(each) for each in info.values)
        case inspect.ListType() | inspect.VarTupleType():
            return f"a list, each item {_worded(info.item_type)}"
        case inspect.UnionType():
            return " or ".join(_worded(each) for each in info.types)
        case inspect.NoneType():
            return "null"
        case inspect.DictType():
            return f"a mapping, each value {_worded(info.value_type)}"
        case _:
            return "any value"


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    words = {">": info.gt, ">=": info.ge, "<": info.lt, "<=": info.le}
    parts = [f"{sign} {bound:.15g}" for sign, bound in words.items() if bound is not None]
    return f" {' and '.join(parts)}" if parts else ""


def _length(info: inspect.StrType) -> str:
    if info.max_length is not None:
        return f" of {info.min_length or 0} to {info.max_length} characters"
    return " that is not empty" if info.min_length else ""


def _nested(key: str) -> list[str]:
    """The settings that are called `key` inside their section."""
    sections = [field for field in fields(Settings) if hasattr(field.type, "__struct_fields__")]
    return [f"{each.name}.{key}" for each in sections if key in each.type.__struct_fields__]


def _list(section: str, names: Collection[str]) -> str:
    return f"allowed{f' under {section}' if section else ''}: {', '.join(sorted(names))}"
