"""What the README says of the command line, typed as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[3] / "README.md"
SECTION = re.compile(r"^## From the command line\n(.*?)^## ", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_readme_do_what_it_says(shared_service, tmp_path):
    bash = shutil.which("bash") or pytest.skip("the README's commands need bash")
    [section] = SECTION.findall(README.read_text())
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TASK_AGENT_URL": shared_service.url,
    }
    script = "set -euo pipefail\n" + "".join(BLOCK.findall(section))
    run = subprocess.run(
        [bash, "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    first, second, *_ = run.stdout.splitlines()
    assert first == "Processed input: What is a lease?"
    assert json.loads(second)["result"]["output"] == "Processed input: What is a fence?\n"
    assert "\n4 means cancelled: 4\n" in run.stdout
    results = (tmp_path / "results.jsonl").read_text().splitlines()
    assert sorted(json.loads(result)["line"] for result in results) == [1, 2]
    completing = environ | {"_TASK_AGENT_COMPLETE": "bash_source"}
    shown = subprocess.run(
        ["task-agent"], env=completing, capture_output=True, text=True, check=True
    )
    assert "complete" in shown.stdout
