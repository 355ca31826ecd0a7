"""`kill -9` of one process of several: the others take its tasks over, and nothing is lost."""

from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

import pytest

SEED = 20_240_602
LEASE_SECONDS = 2
HELD_SECONDS = 4  # how long a task that is to be killed would run
LONG_FORM = [pytest.mark.torture, pytest.mark.timeout(1800)]


def starts_after(database, orphans):
    """When later attempts than these began, of those that run or have ended."""
    rows = database.fetch(
        "SELECT id, attempt, to_timestamp(started_at / 1000000.0) AS started_at FROM task"
        " WHERE id = ANY ($1) AND started_at IS NOT NULL",
        list(orphans),
    )
    return [row["started_at"] for row in rows if row["attempt"] > orphans[row["id"]]]


def all_run_again(database, orphans):
    return len(starts_after(database, orphans)) == len(orphans)


# Promised are "a few seconds" after the lease; one and a half where nothing else is in the way.
@pytest.mark.parametrize(
    ("kills", "late_seconds"), [(3, 5), pytest.param(50, 1.5, marks=LONG_FORM)]
)
def test_kills_of_random_processes_lose_nothing_and_orphans_run_on_others_after_the_lease(
    make_fleet, load_on, database, eventually, kills, late_seconds
):
    fleet = make_fleet(
        workers=3, worker__lease_seconds=LEASE_SECONDS, worker__max_crashes=1_000_000
    )
    random = Random(SEED)
    waits = []
    with load_on(fleet.api, SEED) as load:
        for _ in range(kills):
            fleet.hold_on_each_worker(load, HELD_SECONDS)
            load.go_on(random.randrange(20))
            victim = random.choice(fleet.processes)
            killed_at = datetime.now(UTC)
            victim.kill()
            orphans = database.held_by(victim)
            assert bool(orphans) == (victim in fleet.workers)
            victim.launch()
            eventually(partial(all_run_again, database, orphans), 20, "the orphans run again")
            waits += [start - killed_at for start in starts_after(database, orphans)]
            victim.until_ready()
    longest = max(waits)
    print(f"{len(waits)} orphans; the last one waited {longest}")
    assert longest <= timedelta(seconds=LEASE_SECONDS + late_seconds)
    assert load.until_all_complete() >= len(waits)
    assert load.refused == []
    uncounted = database.fetch("SELECT id FROM task WHERE attempt <> 1 + crashes")
    assert uncounted == [], "starts that no crash explains"
