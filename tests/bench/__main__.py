"""Measures the service beside its floors: `python tests/bench`, or `make bench`. Linux only.

`--only submit,get` measures these figures, `--json FILE` also writes all values. Databases go to
a temporary directory (TMPDIR chooses where; a tmpfs would make every fsync free).
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import machine
import report
from bench import QUICK, Bench, Figure, Measured, Scale, measure
from figures import FIGURES


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        described = machine.describe(directory)
        print(report.heading(described, arguments.rounds, quick=arguments.quick), flush=True)
        bench = Bench(QUICK if arguments.quick else Scale(), directory)
        measured = _measure(arguments.only, bench, arguments.rounds)
    if arguments.json:
        figures = [report.as_json(figure) for figure in measured]
        document = {"machine": described, "quick": arguments.quick, "figures": figures}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


def _measure(figures: Sequence[Figure], bench: Bench, rounds: int) -> list[Measured]:
    """Each figure is printed as soon as it is there."""
    measured = []
    for figure in figures:
        measured.append(measure(figure, bench, rounds))
        print(f"\n{report.table(measured[-1])}", flush=True)
    return measured


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("tests/bench", description=__doc__)
    parser.add_argument("--only", type=_figures, default=FIGURES, metavar="NAME,…")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny amounts: does it all work?")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def _figures(names: str) -> list[Figure]:
    known = {figure.name: figure for figure in FIGURES}
    unknown = sorted(set(names.split(",")) - known.keys())
    if unknown:
        raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names.split(",")]


if __name__ == "__main__":
    main()
