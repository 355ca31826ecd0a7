"""The SQL of a store: a file per statement, beside the store's code, named after what it does."""

from collections.abc import Mapping
from importlib.resources import files


def statements_of(package: str) -> Mapping[str, str]:
    """The text of each `.sql` file of this package, by its name without the suffix."""
    return {
        file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
        for file in files(package).iterdir()
        if file.name.endswith(".sql")
    }
