"""Below a floor of free disk SQLite takes no more tasks, while everything else goes on."""

import asyncio
from pathlib import Path

import pytest

from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from adapters.stores.sqlite.disk import DiskFloor, DiskUsage
from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import KEEP_ALL, LEASE, NO_LIMITS, RESULT, USAGE, WORKER, new_task
from domain.errors import StorageFull
from domain.ports import Completed, TaskCounts
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, TaskStatus

MIB = 1024 * 1024


class Disk:
    """A file system of a gigabyte, as full as a test wants it."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.asked = 0

    def usage(self, _path: Path) -> DiskUsage:
        self.asked += 1
        return DiskUsage(1024 * MIB, self.free)


def test_submits_are_refused_below_the_floor_and_taken_again_above_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, disk = FakeClock(), Disk(10 * MIB)
        options = SqliteOptions(path=str(tmp_path / "tasks.db"), min_free_bytes=5 * MIB)
        async with SqliteTaskStore(options, clock, disk.usage) as store:
            await store.submit([new_task()], NO_LIMITS)
            disk.free = 5 * MIB - 1
            clock.advance(1)
            with pytest.raises(StorageFull, match=f"{5 * MIB - 1} bytes are free, {5 * MIB} must"):
                await store.submit([new_task()], NO_LIMITS)
            with pytest.raises(StorageFull):
                await store.check()
            assert await store.counts() == TaskCounts(pending=1)
            disk.free = 5 * MIB
            clock.advance(1)
            await store.submit([new_task()], NO_LIMITS)
            await store.check()
            assert await store.counts() == TaskCounts(pending=2)

    asyncio.run(scenario())


def test_everything_but_submits_goes_on_below_the_floor(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, disk = FakeClock(), Disk(10 * MIB)
        options = SqliteOptions(path=str(tmp_path / "tasks.db"), min_free_bytes=5 * MIB)
        async with SqliteTaskStore(options, clock, disk.usage) as store:
            task = new_task()
            await store.submit([task], NO_LIMITS)
            disk.free = 0
            clock.advance(1)
            [claim] = await store.claim(WORKER, {"echo": 1}, LEASE)
            assert await store.renew([claim.fence], LEASE) == {claim.fence}
            settled = await store.settle([Completed(claim.fence, RESULT, USAGE)])
            assert settled == [TaskStatus.COMPLETED]
            found = await store.get(task.id, ANONYMOUS)
            assert found is not None
            assert found.status is TaskStatus.COMPLETED
            assert await store.purge(KEEP_ALL, limit=1) == 0
            clock.advance(10)
            assert await store.purge(RetentionPolicy(5, 0), limit=1) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("total", "floor"), [(10_000 * MIB, 64 * MIB), (640 * MIB, 64 * MIB), (100 * MIB, 10 * MIB)]
)
def test_the_usual_floor_is_64_mib_or_a_tenth_of_a_small_file_system(
    total: int, floor: int
) -> None:
    def shortage(free: int) -> StorageFull | None:
        return DiskFloor(None, lambda: DiskUsage(total, free), FakeClock().monotonic).shortage()

    assert shortage(floor) is None
    assert shortage(floor - 1) is not None


def test_the_system_is_asked_a_few_times_a_second_however_many_tasks_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, disk = FakeClock(), Disk(1024 * MIB)
        options = SqliteOptions(path=str(tmp_path / "tasks.db"))
        async with SqliteTaskStore(options, clock, disk.usage) as store:
            for _ in range(100):
                await store.submit([new_task()], NO_LIMITS)
                clock.advance(0.01)
            assert disk.asked <= 5

    asyncio.run(scenario())
