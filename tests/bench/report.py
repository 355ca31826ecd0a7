"""The table for people and the JSON for programs."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench import Line, Measured

_BUSY = 0.95
_COLUMNS = "  {:<42} {:>9} {:>19}  {:>5} {:>13}  {:<9} {}"


def heading(machine: Mapping[str, str], rounds: int, *, quick: bool) -> str:
    lines = [f"{name + ':':<13}{value}" for name, value in machine.items()]
    lines.append(f"{'rounds:':<13}{rounds}, in turn; medians, with the smallest and the largest")
    if quick:
        lines.append("QUICK: too little is measured for any of this to mean something")
    titles = ("", "median", "min … max", "ratio", "min … max", "goal", "")
    return "\n".join([*lines, "", _COLUMNS.format(*titles).rstrip()])


def table(measured: Measured) -> str:
    figure = measured.figure
    title = f"{figure.title} [{figure.name}]" + (f", {figure.unit}" if figure.unit else "")
    lines = [title, *(_row(measured, line) for line in _lines(measured))]
    lines += [f"  skipped: {reason}" for reason in dict.fromkeys(measured.skipped)]
    if figure.unit == "/s" and measured.load_busy > _BUSY:
        lines.append(f"  the load used {measured.load_busy:.0%} of its core: it set the pace")
    return "\n".join(lines)


def as_json(measured: Measured) -> dict[str, Any]:
    figure = measured.figure
    return {
        "name": figure.name,
        "title": figure.title,
        "unit": figure.unit,
        "load_busy": round(measured.load_busy, 2),
        "skipped": measured.skipped,
        "lines": [_line_as_json(measured, line) for line in _lines(measured)],
    }


def _lines(measured: Measured) -> list[Line]:
    """Those that were measured."""
    return [line for line in measured.figure.lines if line.label in measured.values]


def _row(measured: Measured, line: Line) -> str:
    values, ratios = measured.values[line.label], _ratios(measured, line)
    shown = [line.label, _number(statistics.median(values)), _spread(values)]
    shown += [_number(statistics.median(ratios)), _spread(ratios)] if ratios else ["", ""]
    return _COLUMNS.format(*shown, _goal(line), _verdict(measured, line)).rstrip()


def _line_as_json(measured: Measured, line: Line) -> dict[str, Any]:
    values, ratios = measured.values[line.label], _ratios(measured, line)
    return {
        "label": line.label,
        "median": statistics.median(values),
        "values": values,
        "over": line.over,
        "ratio": statistics.median(ratios) if ratios else None,
        "ratios": ratios,
        "goal": _goal(line) or None,
        "verdict": _verdict(measured, line) or None,
    }


def _ratios(measured: Measured, line: Line) -> list[float]:
    """Round by round: the two were measured within seconds of each other."""
    if line.over is None:
        return []
    pairs = zip(measured.values[line.label], measured.values[line.over], strict=True)
    return [value / floor for value, floor in pairs]


def _goal(line: Line) -> str:
    if line.at_least is not None:
        return f">= {line.at_least:g}"
    return f"<= {line.at_most:g}" if line.at_most is not None else ""


def _verdict(measured: Measured, line: Line) -> str:
    value = statistics.median(_ratios(measured, line) or measured.values[line.label])
    if line.at_least is not None:
        return "met" if value >= line.at_least else "MISSED"
    if line.at_most is not None:
        return "met" if value <= line.at_most else "MISSED"
    return ""


def _spread(values: Sequence[float]) -> str:
    return f"{_number(min(values))} … {_number(max(values))}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
