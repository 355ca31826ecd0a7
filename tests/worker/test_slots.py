"""How free slots are dealt out to executors."""

from hypothesis import given
from hypothesis import strategies as st

from entrypoints.worker.slots import Slots

LIMITS = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 10), min_size=1)


@given(LIMITS, st.integers(1, 20), st.data())
def test_shares_stay_within_every_limit_and_leave_nothing_free_that_could_be_used(
    limits, total, data
):
    slots = Slots(total, limits)
    taken = dict.fromkeys(limits, 0)
    for _ in range(data.draw(st.integers(0, 5))):
        room = st.none() | st.integers(0, 12)
        asked = data.draw(st.dictionaries(st.sampled_from(sorted(limits)), room))
        free = total - sum(taken.values())
        rooms = {name: limits[name] - taken[name] for name in asked}
        rooms |= {name: min(rooms[name], n) for name, n in asked.items() if n is not None}
        shares = slots.deal(asked)
        assert shares.keys() <= asked.keys()
        assert all(0 < share <= rooms[name] for name, share in shares.items())
        assert sum(shares.values()) == min(free, sum(rooms.values()))
        for name, share in shares.items():
            for _ in range(data.draw(st.integers(0, share))):
                slots.take(name)
                taken[name] += 1


def test_shares_are_even_but_for_what_a_limit_forbids():
    assert Slots(9, {"a": 9, "b": 1, "c": 9}).deal(dict.fromkeys("abc")) == {"a": 4, "b": 1, "c": 4}


def test_a_single_free_slot_goes_to_another_executor_each_time():
    slots = Slots(1, {"a": 1, "b": 1, "c": 1})
    assert {name for _ in range(3) for name in slots.deal(dict.fromkeys("abc"))} == {"a", "b", "c"}


def test_a_slot_that_is_freed_is_dealt_again():
    slots = Slots(1, {"a": 1})
    slots.take("a")
    assert slots.deal({"a": None}) == {}
    slots.free("a")
    assert slots.deal({"a": None}) == {"a": 1}


def test_huge_limits_cost_no_more_than_small_ones():
    slots = Slots(10**12, {"a": 10**12, "b": 3})
    assert slots.deal(dict.fromkeys("ab")) == {"a": 10**12 - 3, "b": 3}
