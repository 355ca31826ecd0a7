import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent


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


def test_an_unknown_figure_is_refused_with_the_names_of_those_there_are() -> None:
    ended = run("--only", "speed")

    assert ended.returncode == 2
    assert "no speed; there are submit," in ended.stderr
