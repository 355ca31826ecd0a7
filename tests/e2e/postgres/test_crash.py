"""`kill -9` of one process of several: the others take its tasks over, and nothing is lost."""

from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

import pytest

SEED = 20_240_602
LEASE_SECONDS = 2
HELD_SECONDS = 3  # how long a task that is to be killed would run
LONG_FORM = [pytest.mark.torture, pytest.mark.timeout(1800)]


def fates(database, orphans):
    """The attempts after these that began, and those of these whose end was on its way already."""
    return database.fetch(
        "SELECT task.attempt > orphan.attempt AS is_next,"
        "       to_timestamp(started_at / 1000000.0) AS started_at"
        "  FROM task JOIN unnest($1::text[], $2::int[]) AS orphan (id, attempt) USING (id)"
        " WHERE (task.attempt > orphan.attempt AND started_at IS NOT NULL) OR status = 'completed'",
        list(orphans),
        list(orphans.values()),
    )


def all_decided(database, orphans):
    return len(fates(database, orphans)) == len(orphans)


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
            load.go_on(random.randrange(20))
            fleet.hold_on_each_worker(load, HELD_SECONDS)
            victim = random.choice(fleet.processes)
            killed_at = datetime.now(UTC)
            victim.kill()
            orphans = database.held_by(victim)
            assert bool(orphans) == (victim in fleet.workers)
            victim.launch()
            eventually(partial(all_decided, database, orphans), 20, "the orphans run again")
            runs = [fate for fate in fates(database, orphans) if fate["is_next"]]
            waits += [run["started_at"] - killed_at for run in runs]
            victim.until_ready()
    longest = max(waits)
    print(f"{len(waits)} orphans; the last one waited {longest}")
    assert longest <= timedelta(seconds=LEASE_SECONDS + late_seconds)
    assert load.until_all_complete() >= len(waits)
    assert load.refused == []
    uncounted = database.fetch("SELECT id FROM task WHERE attempt <> 1 + crashes")
    assert uncounted == [], "starts that no crash explains"
