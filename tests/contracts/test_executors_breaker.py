"""A breaker opens on half of the last twenty failing, and closes one careful step at a time."""

import pytest

from adapters.upstream.breaker import Breaker

WELL, FAILED = True, False


def after(*ends):
    """A breaker, after attempts that ended like this one by one."""
    breaker = Breaker()
    for end in ends:
        breaker.end(breaker.begin(), end)
    return breaker


def opened():
    return after(*[FAILED] * 10)


@pytest.mark.parametrize(
    "ends",
    [
        [],
        [WELL] * 100,
        [FAILED] * 9,
        [FAILED] * 9 + [None] * 100,
        [FAILED] + [WELL] * 11 + [FAILED] * 9,
        [FAILED, WELL, WELL] * 100,
    ],
)
def test_it_lets_everything_in_while_fewer_than_half_of_the_last_twenty_failed(ends):
    breaker = after(*ends)
    assert breaker.room() is None
    assert not breaker.is_open


@pytest.mark.parametrize(
    "ends", [[FAILED] * 10, [WELL] * 1000 + [FAILED] * 10, [FAILED, WELL] * 10]
)
def test_it_opens_when_half_of_the_last_twenty_failed(ends):
    breaker = after(*ends)
    assert breaker.is_open
    assert breaker.room() == 0


def test_attempts_of_before_neither_close_an_open_breaker_nor_fill_its_ramp():
    breaker = Breaker()
    early = [breaker.begin() for _ in range(10)]
    for _ in range(10):
        breaker.end(breaker.begin(), FAILED)
    breaker.end(early.pop(), WELL)
    assert breaker.is_open
    breaker.found_alive()
    assert breaker.room() == 1
    breaker.end(early.pop(), FAILED)
    breaker.end(early.pop(), WELL)
    assert breaker.room() == 1


def test_each_success_after_a_probe_doubles_the_room_until_there_is_no_limit():
    breaker = opened()
    breaker.found_alive()
    rooms = [breaker.room()]
    while breaker.room() is not None:
        breaker.end(breaker.begin(), WELL)
        rooms.append(breaker.room())
    assert rooms == [1, 2, 4, 8, 16, 32, None]


def test_what_runs_takes_room_until_it_ends_however_it_ends():
    breaker = opened()
    breaker.found_alive()
    era = breaker.begin()
    assert breaker.room() == 0
    assert not breaker.is_open
    breaker.end(era, None)
    assert breaker.room() == 1


def test_one_failure_on_the_ramp_opens_it_again():
    breaker = opened()
    breaker.found_alive()
    breaker.end(breaker.begin(), WELL)
    breaker.end(breaker.begin(), FAILED)
    assert breaker.is_open


def test_a_probe_changes_nothing_about_a_breaker_that_is_not_open():
    breaker = Breaker()
    breaker.found_alive()
    assert breaker.room() is None
