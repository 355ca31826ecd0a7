"""What a figure is, and what it needs to be measured."""

import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import filling
from load import Answers, Refused
from machine import LOAD_CORE, SERVER_CORE, process_on
from servers import Server


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    seconds: float = 2.0
    paced_seconds: float = 20.0
    drained: int = 5_000
    queued: int = 20_000
    stored: int = 50_000
    kept: int = 1_000_000
    pending: int = 100_000


QUICK = Scale(0.2, 0.5, drained=200, queued=500, stored=1_000, kept=2_000, pending=1_000)
"""Shows that everything works; the figures say nothing."""


_ROOT = Path(__file__).parents[2]
_PACKAGES = ("domain", "adapters", "entrypoints", "settings")
_ENOUGH = 1_000  # requests: fewer are over before it shows how busy the load is


class Bench:
    """One run of the program: where it writes, and the process that makes the load."""

    def __init__(self, scale: Scale, directory: Path) -> None:
        self.scale = scale
        self.busiest = 0.0
        self._directory = directory
        self._checked_out: dict[str, Path] = {}
        self._load = process_on(LOAD_CORE)

    def close(self) -> None:
        """End the process that makes the load."""
        self._load.shutdown()

    def new_directory(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._directory))

    def load(self, run: Callable[..., Answers], server: Server, *arguments: object) -> Answers:
        """Run a function of `load.py` against the server, and note how busy its core was."""
        try:
            answers = self._load.submit(run, server.port, *arguments).result()
        except (Refused, ConnectionError) as error:
            raise SystemExit(f"{error}\n\nits log ends:\n{server.end_of_log()}") from error
        if len(answers.sent) >= _ENOUGH:
            self.busiest = max(self.busiest, answers.busy)
        return answers

    def copy_of_kept(self) -> Path:
        """A directory with a `tasks.db` that holds `scale.kept` finished tasks."""
        directory = self.new_directory()
        shutil.copy(self._kept, directory / "tasks.db")
        return directory

    def checked_out(self, commit: str) -> Path:
        """A directory with the code of this commit."""
        if commit not in self._checked_out:
            archive = ["git", "archive", commit, *_PACKAGES]
            packed = subprocess.run(archive, cwd=_ROOT, stdout=subprocess.PIPE, check=False)
            if packed.returncode:  # git has said why
                raise SystemExit(f"cannot measure against {commit}")
            directory = self.new_directory()
            subprocess.run(["tar", "-x", "-C", str(directory)], input=packed.stdout, check=True)
            self._checked_out[commit] = directory
        return self._checked_out[commit]

    @cached_property
    def _kept(self) -> Path:
        path = self.new_directory() / "tasks.db"
        with process_on(SERVER_CORE) as process:
            process.submit(filling.fill_sqlite, path, self.scale.kept).result()
        return path


class Skipped(Exception):
    """Raised by a contestant that needs something which is not there."""


Sample = Callable[[], Mapping[str, float]]
"""Measures once; gives a value for each label."""

Contestant = Callable[[Bench], AbstractContextManager[Sample]]
"""Gets ready to be measured, once per run of a figure."""


@dataclass(frozen=True)
class Line:
    """A line of the table. A goal is for the ratio to the line `over`, if there is one."""

    label: str
    over: str | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Figure:
    """Something to be measured. `unit` is that of the values, not of the ratios."""

    name: str
    title: str
    unit: str
    contestants: Sequence[Contestant]
    lines: Sequence[Line]


@dataclass
class Measured:
    """The values of a figure, by label, one for each round; why some lines have none; and how busy
    the load's core was."""

    figure: Figure
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    skipped: list[str] = field(default_factory=list)
    load_busy: float = 0.0


def measure(figure: Figure, bench: Bench, rounds: int) -> Measured:
    """Measure the contestants in turn (A B C A B C …), so that what slows the machine hits all."""
    measured, bench.busiest = Measured(figure), 0.0
    with ExitStack() as stack:
        samples = []
        for contestant in figure.contestants:
            try:
                samples.append(stack.enter_context(contestant(bench)))
            except Skipped as reason:
                measured.skipped.append(str(reason))
        for _ in range(rounds):
            for sample in samples:
                for label, value in sample().items():
                    measured.values[label].append(value)
    measured.load_busy = bench.busiest
    return measured
