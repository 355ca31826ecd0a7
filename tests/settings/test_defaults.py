"""`default.yaml` lists every setting, for people; the schema holds the same defaults."""

from pathlib import Path

from msgspec import Struct, structs, yaml

import settings
from settings.schema import Settings

FILES = Path(settings.__file__).parent
DEFAULTS = yaml.decode((FILES / "default.yaml").read_bytes())


def as_in_files(values):
    """The defaults as plain values, the options of an executor beside its kind."""
    if isinstance(values, Struct):
        return as_in_files(structs.asdict(values))
    if isinstance(values, dict):
        plain = {name: as_in_files(value) for name, value in values.items()}
        return plain | (plain.pop("options") if "kind" in plain else {})
    return values


def test_the_file_and_the_schema_agree_on_every_key_and_value():
    assert as_in_files(Settings()) == DEFAULTS


def test_the_file_keeps_the_order_of_the_schema():
    assert list(DEFAULTS) == [field.name for field in structs.fields(Settings)]


def test_every_environment_changes_known_keys_only():
    for name in ("local", "develop", "production"):
        changed = yaml.decode((FILES / f"{name}.yaml").read_bytes())
        assert changed.keys() <= DEFAULTS.keys()
