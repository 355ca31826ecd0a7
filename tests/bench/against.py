"""The service beside itself as it was at another commit: what did the changes since then cost?"""

from collections.abc import Mapping
from typing import Final

import throughput
from bench import Contestant, Figure, Line
from contestants import MEMORY, QUIET, SQLITE, Measurement, sampled, service

_MEASURED: Final[Mapping[str, tuple[str, Measurement]]] = {
    "submit": ("submit", throughput.submit),
    "prompt": ("submit of a prompt", throughput.submit_prompts),
    "get": ("get of finished tasks", throughput.get),
    "drain": ("drain of echo tasks, first submit to last completion", throughput.drain),
}
_STORES: Final = {"memory": MEMORY, "SQLite": SQLITE}


def figures_against(commit: str) -> list[Figure]:
    """The main figures of this tree, each over that of the commit."""
    return [
        Figure(
            name,
            f"{title}, 64 clients; now and at {commit}",
            "/s",
            _contestants(commit, measurement),
            [line for store in _STORES for line in (Line(_then(store)), Line(store, _then(store)))],
        )
        for name, (title, measurement) in _MEASURED.items()
    ]


def _contestants(commit: str, measurement: Measurement) -> list[Contestant]:
    contestants: list[Contestant] = []
    for store, settings in _STORES.items():
        then, now = service(settings, QUIET, commit=commit), service(settings, QUIET)
        contestants += [sampled(_then(store), then, measurement), sampled(store, now, measurement)]
    return contestants


def _then(store: str) -> str:
    return f"{store}, then"
