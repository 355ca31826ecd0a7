"""Files and environment into one `Settings`.

Later wins: `default.yaml`, `<ENV>.yaml`, the files of `TASK_AGENT_SETTINGS`, those of `--settings`,
the variables `TASK_AGENT_<SECTION>__<KEY>`, the arguments of the command line, `DEV_MODE`. Each of
these is one layer, and dynaconf lays them over each other: mappings merge, anything else replaces.
Only that is left of dynaconf's features. Nothing in a value is evaluated, no file is looked for,
and a fault is an error, not silence.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args, get_origin

from dynaconf import Dynaconf
from dynaconf.vendor.ruamel import yaml
from msgspec import Struct
from msgspec.structs import fields

from settings.conversion import (
    SettingsError,
    Sources,
    VariableText,
    convert,
    from_json,
    join,
    source_of,
    unknown_key,
)
from settings.schema import ExecutorSettings, Settings

__all__ = ["SettingsError", "Sources", "convert", "load_settings", "settings_files"]

PREFIX: Final = "TASK_AGENT_"
FILE_LIST: Final = "TASK_AGENT_SETTINGS"
NO_SETTINGS: Final = (FILE_LIST, "TASK_AGENT_URL", "TASK_AGENT_API_KEY")
"""Variables of that prefix that are none; the last two are for clients of a service."""
ENVIRONMENTS: Final = ("local", "develop", "production")
_HERE: Final = Path(__file__).parent
_SWITCHES: Final = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(
    ("false", "0", "no", "off"), False
)


class Layer(NamedTuple):
    """Some values, and where they came from."""

    source: str
    values: dict[str, Any]


def load_settings(
    files: Sequence[Path] = (),
    environ: Mapping[str, str] = os.environ,
    arguments: Mapping[str, object] | None = None,
) -> tuple[Settings, Sources]:
    """The settings in force, and where each came from.

    `files` are merged over those of the environment; `arguments` (dotted key to value, named in
    errors as the option `--<last part>`) win over both. Raises `SettingsError`.
    """
    layers = [_read(path) for path in settings_files(files, environ)]
    layers += _variables(environ)
    layers += [_at(key, value, _option(key)) for key, value in (arguments or {}).items()]
    layers += _dev_mode(environ)
    sources: dict[str, str] = {}
    for layer in layers:
        _check_keys(layer.values, Settings, "", layer.source)
        sources |= dict.fromkeys(_leaf_keys(layer.values, ""), layer.source)
    values = _merged(layers)
    values["executors"] = _with_options(_without_removed(values.get("executors")))
    settings = convert(values, Settings, "", sources)
    _check_together(settings, sources)
    return settings, sources


def settings_files(files: Sequence[Path], environ: Mapping[str, str]) -> list[Path]:
    """Every file that is read, in the order in which they are merged."""
    environment = environ.get("ENV", "local")
    if environment not in ENVIRONMENTS:
        raise SettingsError(
            f"ENV (a variable) is {environment[:50]!r}; allowed: {', '.join(ENVIRONMENTS)}"
        )
    listed = [Path(name) for name in environ.get(FILE_LIST, "").split(":") if name]
    return [_HERE / "default.yaml", _HERE / f"{environment}.yaml", *listed, *files]


# --- files -----------------------------------------------------------------------------------


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # dynaconf ships no types
    """YAML without aliases: a few lines of them can stand for more values than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.parser.check_event(yaml.AliasEvent):
            mark = self.parser.peek_event().start_mark
            raise yaml.composer.ComposerError(problem="aliases are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)


def _read(path: Path) -> Layer:
    source = f"settings/{path.name}" if path.parent == _HERE else f"the file {path}"
    text = _text_of(path, f"{source} (settings)")
    try:
        values = yaml.load(text, Loader=_PlainLoader)
    except (yaml.error.YAMLError, yaml.error.YAMLFutureWarning) as error:
        raise SettingsError(f"{source} is not valid YAML: {_fault(error)}") from None
    except (RecursionError, ValueError):
        raise SettingsError(
            f"{source} is not valid YAML: nested too deeply, or a bad date"
        ) from None
    if values is not None and not isinstance(values, dict):
        raise SettingsError(f"{source} holds {type(values).__name__}, allowed: a mapping of keys")
    return Layer(source, values or {})


def _fault(error: Any) -> str:
    """What is wrong and where, without the text around it, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    problem = getattr(error, "problem", None) or "characters that YAML does not allow"
    return f"{problem.partition(' with value')[0]}{where}"


def _text_of(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SettingsError(f"{what} cannot be read: {reason}") from None


# --- environment -----------------------------------------------------------------------------


def _variables(environ: Mapping[str, str]) -> list[Layer]:
    """A layer for each variable, the ones for whole sections first."""
    names = [name for name in environ if name.startswith(PREFIX) and name not in NO_SETTINGS]
    names.sort(key=lambda name: (name.count("__"), name))
    return [_variable(name, environ) for name in names]


def _variable(name: str, environ: Mapping[str, str]) -> Layer:
    key = name.removeprefix(PREFIX).lower().replace("__", ".")
    source = f"the variable {name}"
    if not key.endswith("_file"):
        return _at(key, _from_variable(environ[name]), source)
    if name.removesuffix("_FILE") in environ:
        raise SettingsError(f"{name} and {name.removesuffix('_FILE')} are both set; allowed: one")
    path = Path(environ[name])
    text = _text_of(path, f"the file {path} (named by {source})")
    return _at(key.removesuffix("_file"), text.rstrip("\r\n"), f"the file {path}, by {source}")


def _from_variable(text: str) -> Any:
    value = from_json(text)
    return value if isinstance(value, dict) else VariableText(text)


def _dev_mode(environ: Mapping[str, str]) -> list[Layer]:
    found = environ.get("DEV_MODE")
    if found is None:
        return []
    if found.lower() not in _SWITCHES:
        allowed = ", ".join(_SWITCHES)
        raise SettingsError(f"DEV_MODE (a variable) is {found[:50]!r}; allowed: {allowed}")
    return [Layer("the variable DEV_MODE", {"dev_mode": _SWITCHES[found.lower()]})]


def _option(key: str) -> str:
    return f"the option --{key.rpartition('.')[2]}"


def _at(key: str, value: Any, source: str) -> Layer:
    """A layer with one value at a dotted key."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return Layer(source, value)


# --- all layers ------------------------------------------------------------------------------


def _check_keys(values: dict[Any, Any], type_: Any, section: str, source: str) -> None:
    """Raise for a key that is no text or not in the schema; drop sections that are left empty.

    An executor that is left empty stays, to be removed.
    """
    known = _types_of_keys(type_)
    for name, value in list(values.items()):
        key = join(section, str(name))
        if not isinstance(name, str):
            raise SettingsError(f"{key} (from {source}) is a key that is not text; quote it")
        if (known is not None and name not in known) or name.startswith("dynaconf_"):
            raise unknown_key(key, known or (), source)
        inner = _type_under(name, type_, known)
        if value is None and _is_section(inner) and inner is not ExecutorSettings:
            del values[name]
        elif isinstance(value, dict):
            _check_keys(value, inner, key, source)


def _types_of_keys(type_: Any) -> dict[str, Any] | None:
    """The keys of a section and their types; None where any key may stand."""
    if type_ is ExecutorSettings or not (isinstance(type_, type) and issubclass(type_, Struct)):
        return None
    return {field.name: field.type for field in fields(type_)}


def _type_under(name: str, type_: Any, known: dict[str, Any] | None) -> Any:
    if known is not None:
        return known[name]
    return get_args(type_)[1] if get_origin(type_) is dict else Any


def _is_section(type_: Any) -> bool:
    return get_origin(type_) is dict or (isinstance(type_, type) and issubclass(type_, Struct))


def _leaf_keys(values: Mapping[str, Any], section: str) -> Iterator[str]:
    for name, value in values.items():
        key = join(section, name).lower()
        yield key
        if isinstance(value, dict):
            yield from _leaf_keys(value, key)


class _Whole(NamedTuple):
    """A list on its way through dynaconf, which would append it to the one before."""

    items: list[Any]


def _merged(layers: Sequence[Layer]) -> dict[str, Any]:
    merged = Dynaconf(
        core_loaders=[],
        loaders=[],
        load_dotenv=False,
        auto_cast=False,
        dotted_lookup=False,
        merge_enabled=True,
    )
    for layer in layers:
        merged.update(_lists_kept_whole(layer.values))
    names = [field.name for field in fields(Settings)]
    return {name: _unpacked(merged[name]) for name in names if name in merged}


def _lists_kept_whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists_kept_whole(item) for name, item in value.items()}
    return _Whole(value) if isinstance(value, list) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unpacked(item) for name, item in value.items()}
    return value.items if isinstance(value, _Whole) else value


def _without_removed(executors: Any) -> Any:
    """What a layer set to null is gone, unless a later one sets it anew."""
    if not isinstance(executors, dict):
        return executors
    return {name: values for name, values in executors.items() if not _is_null(values)}


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, VariableText) and from_json(value) is None)


def _with_options(executors: Any) -> Any:
    """Move what only an executor's kind knows from beside `kind` into `options`."""
    if not isinstance(executors, dict):
        return executors
    own = {field.name for field in fields(ExecutorSettings)} - {"options"}
    return {name: _split(values, own) for name, values in executors.items()}


def _split(values: Any, own: Collection[str]) -> Any:
    if not isinstance(values, dict):
        return values
    options = {name: value for name, value in values.items() if name not in own}
    return {name: values[name] for name in own & values.keys()} | {"options": options}


def _check_together(settings: Settings, sources: Sources) -> None:
    """Raise for values that are fine alone, but not beside each other."""
    chosen = settings.inference.default_executor
    if chosen not in settings.executors:
        key, names = "inference.default_executor", sorted(settings.executors)
        raise SettingsError(
            f"{key} (from {source_of(key, sources)}) is {chosen!r}"
            f"{_where_removed(chosen, settings, sources)};"
            f" allowed: {', '.join(names) or 'none is left'} (the names under executors)"
        )
    _check_keys_differ(settings, sources)


def _where_removed(name: str, settings: Settings, sources: Sources) -> str:
    """Where an executor that is not there was set to null; empty if it never was there."""
    key = f"executors.{name}"
    if key.lower() not in sources or name.lower() in map(str.lower, settings.executors):
        return ""
    return f", but {key} (from {source_of(key, sources)}) is null"


def _check_keys_differ(settings: Settings, sources: Sources) -> None:
    """Two keys of one name are one owner; but one key of two names would be nobody's."""
    hashes = [each.sha256 for each in settings.security.api_keys]
    for number, found in enumerate(hashes):
        if found in hashes[:number]:
            key = f"security.api_keys[{number}].sha256"
            raise SettingsError(
                f"{key} (from {source_of(key, sources)}) stands in this list before;"
                " allowed: each key once"
            )
