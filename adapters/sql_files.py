"""The SQL of a store: a file per statement, beside the store's code, named after what it does.

A statement that goes through tasks in either order is one file, with `{order}` in its name and
`{<}`, `{DESC}` and `{ASC}` in its text, and becomes two: `newest_first` as it is written, and
`oldest_first` turned round.
"""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Final

_ORDER: Final = "{order}"
_ORDERS: Final = {
    "newest_first": {"{<}": "<", "{DESC}": "DESC", "{ASC}": "ASC"},
    "oldest_first": {"{<}": ">", "{DESC}": "ASC", "{ASC}": "DESC"},
}


def statements_of(package: str) -> Mapping[str, str]:
    """The text of each `.sql` file of this package, by its name without the suffix."""
    return {
        name: text
        for file in files(package).iterdir()
        if file.name.endswith(".sql")
        for name, text in _in_orders(file.name.removesuffix(".sql"), file.read_text("utf-8"))
    }


def _in_orders(name: str, text: str) -> Iterator[tuple[str, str]]:
    if _ORDER not in name:
        yield name, text
        return
    for order, words in _ORDERS.items():
        turned = text
        for word, meant in words.items():
            turned = turned.replace(word, meant)
        yield name.replace(_ORDER, order), turned
