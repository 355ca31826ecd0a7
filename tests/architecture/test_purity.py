"""The domain computes. It reads no clock, rolls no dice, opens nothing, and waits for nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

DOMAIN = Path(__file__).parents[2] / "domain"
MODULES = sorted(DOMAIN.rglob("*.py"))

PURE = {
    "collections.abc",
    "contextlib",
    "domain",
    "enum",
    "math",
    "msgspec",
    "types",
    "typing",
}
"""All that the domain may import, with what is inside it."""

IMPURE_CALLS = {
    "open",
    "print",
    "input",
    "eval",
    "exec",
    "compile",
    "__import__",
    "breakpoint",
    "id",
}


def impurities(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                yield from (f"imports {name.name}" for name in names if not is_pure(name.name))
            case ast.ImportFrom(module=module, level=level) if level or not is_pure(module or ""):
                yield f"imports from {'.' * level}{module or ''}"
            case ast.Call(func=ast.Name(name)) if name in IMPURE_CALLS:
                yield f"calls {name}"
            case ast.Global() | ast.Nonlocal():
                yield "rebinds what is not its own"


def is_pure(module: str) -> bool:
    return any(module == pure or module.startswith(f"{pure}.") for pure in PURE)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_of_the_domain_is_pure(module):
    assert list(impurities(module.read_text())) == []


def test_every_module_of_the_domain_is_looked_at():
    assert {"task", "ports", "service", "execution", "retry", "retention"} <= {
        module.stem for module in MODULES
    }


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import time as clock",
        "from datetime import datetime",
        "import asyncio",
        "import random, math",
        "from . import task",
        "from secrets import token_hex",
        "def f():\n    import logging",
        "import collections.abc, threading",
        "from adapters import clock",
        "from typing_extensions import Any",
        "def f():\n    return open('x')",
        "def f():\n    global x\n    x = 1",
    ],
)
def test_an_impure_line_is_seen(source):
    assert list(impurities(source)) != []
