import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent


def is_known_to_git() -> bool:
    if shutil.which("git") is None:
        return False
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=BENCH, capture_output=True, check=False
    )
    return asked.returncode == 0


in_a_repository = pytest.mark.skipif(not is_known_to_git(), reason="git knows no commit here")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


def test_the_bench_measures_the_service_beside_its_floors(tmp_path: Path) -> None:
    ended = run("--quick", "--rounds", "1", "--only", "idle", "--json", str(tmp_path / "figures"))

    assert ended.returncode == 0, ended.stderr
    assert "bare Litestar" in ended.stdout
    [figure] = json.loads((tmp_path / "figures").read_bytes())["figures"]
    values = {line["label"]: line["values"] for line in figure["lines"]}
    assert values.keys() == {"bare Litestar", "memory", "SQLite"}
    assert all(value > 0 for [value] in values.values())


@in_a_repository
def test_the_bench_measures_the_service_beside_another_commit_of_itself() -> None:
    ended = run("--quick", "--rounds", "1", "--only", "get", "--against", "HEAD")

    assert ended.returncode == 0, ended.stderr
    assert "memory, then" in ended.stdout
    assert "SQLite, then" in ended.stdout


@in_a_repository
def test_a_commit_that_is_not_there_is_refused() -> None:
    ended = run("--quick", "--rounds", "1", "--only", "get", "--against", "nonsense")

    assert ended.returncode == 1
    assert "cannot measure against nonsense" in ended.stderr


def test_an_unknown_figure_is_refused_with_the_names_of_those_there_are() -> None:
    ended = run("--only", "speed")

    assert ended.returncode == 2
    assert "no speed; there are submit," in ended.stderr
