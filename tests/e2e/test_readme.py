"""The README's tour, typed as it stands there: only the port is another one."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
DOCUMENTED = "localhost:8000"
SHELL = """
set -euo pipefail
curl() { command curl --silent --show-error --fail --max-time 20 "$@"; }
"""


def blocks(language):
    """What the README shows in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def documents(text):
    """The JSON documents that stand one after another in this text."""
    found, decode = [], json.JSONDecoder().raw_decode
    while text := text.lstrip():
        document, end = decode(text)
        found.append(document)
        text = text[end:]
    return found


@pytest.fixture
def answers(make_service):
    """What the tour is answered, in order: documents, then a stream of events."""
    bash, curl = shutil.which("bash"), shutil.which("curl")
    if not bash or not curl:
        pytest.skip("the README's tour needs bash and curl, which are not both installed here")
    service = make_service().start()
    tour = [block for block in blocks("bash") if DOCUMENTED in block or "$TASKS" in block]
    script = SHELL + "".join(tour).replace(DOCUMENTED, f"localhost:{service.address[1]}")
    run = subprocess.run(
        [bash, "-c", script], cwd=service.directory, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    in_json, first_event, events = run.stdout.partition("id: 1\n")
    return [*documents(in_json), first_event + events]


def test_the_tour_of_the_readme_goes_as_it_says(answers):
    created, task, health, whole, batch, cancelled, again, page, queue, events = answers
    for answer, block in zip((created, task, health), blocks("json"), strict=True):
        assert answer.keys() == json.loads(block).keys()
    assert (created["status"], task["task_id"]) == ("pending", created["task_id"])
    assert health["status"] == "healthy"
    assert (whole["status"], whole["priority"]) == ("completed", 5)
    assert whole["result"] == {"output": "Processed input: hello"}
    assert ["error" in one for one in batch["data"]] == [False, True, False]
    assert (cancelled["status"], again["retry_of"]) == ("cancelled", cancelled["task_id"])
    assert [one["task_id"] for one in page["data"]] == [cancelled["task_id"]]
    assert page["data"][0]["input"] == "later"
    assert queue["by_status"].keys() == {"pending", "running"}
    kinds = re.findall(r"^event: (\w+)$", events, re.MULTILINE)
    assert (kinds[2], kinds[-1]) == ("output", "done")
