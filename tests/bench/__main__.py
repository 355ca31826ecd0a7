"""Measures the service beside its floors: `python tests/bench`, or `make bench`. Linux only.

`--only submit,get` measures these figures, `--json FILE` also writes all values. `--against COMMIT`
measures this tree beside that commit, with the packages that are installed here. Databases go to a
temporary directory (TMPDIR chooses where; a tmpfs would make every fsync free).
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import machine
import report
from against import figures_against
from bench import QUICK, Bench, Figure, Measured, Scale, measure
from figures import FIGURES


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        described = machine.describe(directory)
        print(report.heading(described, arguments.rounds, quick=arguments.quick), flush=True)
        with closing(Bench(QUICK if arguments.quick else Scale(), directory)) as bench:
            measured = _measure(arguments.figures, bench, arguments.rounds)
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
    parser.add_argument("--only", metavar="NAME,…")
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny amounts: does it all work?")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    figures = figures_against(arguments.against) if arguments.against else FIGURES
    known = {figure.name: figure for figure in figures}
    asked = arguments.only.split(",") if arguments.only else list(known)
    unknown = sorted(set(asked) - known.keys())
    if unknown:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(known)}")
    arguments.figures = [known[name] for name in asked]
    return arguments


if __name__ == "__main__":
    main()
