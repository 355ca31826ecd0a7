"""A PostgreSQL that goes away under load, and comes back: no process of ours is started again."""

import time
from functools import partial

import pytest

SEED = 20_240_604
LEASE_SECONDS = 2
NOTICED_WITHIN_SECONDS = 5  # promised
RECOVERED_WITHIN_SECONDS = 5  # where nothing else is in the way
LONG_FORM = [pytest.mark.torture, pytest.mark.timeout(1800)]


@pytest.fixture
def dsn(postgres_server):
    """A server that nobody else uses."""
    return postgres_server.dsn


@pytest.fixture
def fleet(make_fleet):
    return make_fleet(
        workers=2,
        worker__port=0,
        worker__lease_seconds=LEASE_SECONDS,
        worker__max_crashes=1_000_000,
    )


def all_answer_readyz(fleet, status):
    return all(process.request("GET", "/readyz").status == status for process in fleet.processes)


def run_one(load, eventually, within):
    """Wait until a task is accepted and has completed."""
    deadline = time.monotonic() + within
    task_id = eventually(partial(load.submit, "after", 0), within, "a task is accepted")
    eventually(partial(load.are_done, [task_id]), deadline - time.monotonic(), "it completes")


def check_that_nothing_is_lost(fleet, load):
    load.until_all_complete()
    for process in fleet.processes:
        assert process.process.poll() is None, "it ended"
    for answer in load.refused:
        check_refusal(answer)


def check_refusal(answer):
    assert (answer.status, answer.json["code"]) == (503, "store_unavailable")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


@pytest.mark.parametrize(
    ("rounds", "recovery_seconds"),
    [(1, 20), pytest.param(10, RECOVERED_WITHIN_SECONDS, marks=LONG_FORM)],
)
def test_a_server_that_crashes_and_starts_again_loses_nothing(
    postgres_server, fleet, load_on, eventually, rounds, recovery_seconds
):
    with load_on(fleet.api, SEED) as load:
        for _ in range(rounds):
            load.submit("amid the outage", 1)
            load.go_on(30)
            postgres_server.stop()
            eventually(partial(all_answer_readyz, fleet, 503), NOTICED_WITHIN_SECONDS, "all notice")
            check_refusal(fleet.api.post("meanwhile", {}))
            postgres_server.start()
            run_one(load, eventually, recovery_seconds)
            eventually(partial(all_answer_readyz, fleet, 200), 10, "all are ready again")
    assert load.refused
    check_that_nothing_is_lost(fleet, load)


@pytest.mark.parametrize(
    ("rounds", "pause_seconds"), [(3, 0), pytest.param(30, 2, marks=LONG_FORM)]
)
def test_connections_that_are_ended_again_and_again_lose_nothing(
    fleet, load_on, database, eventually, rounds, pause_seconds
):
    with load_on(fleet.api, SEED) as load:
        for _ in range(rounds):
            goes_on_at = time.monotonic() + pause_seconds
            load.go_on(20)
            ended = database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            assert len(ended) >= len(fleet.processes)
            run_one(load, eventually, RECOVERED_WITHIN_SECONDS)
            eventually(lambda until=goes_on_at: time.monotonic() >= until, 10, "the next round")
    print(f"{len(load.accepted)} accepted, {len(load.refused)} refused")
    check_that_nothing_is_lost(fleet, load)
