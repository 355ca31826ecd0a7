"""The events of a task, each once and in order, however often their stream is cut."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from entrypoints.client.service import Event, Service, Unavailable

DONE: Final = "done"
_PAUSE_SECONDS: Final = 0.5


async def follow(service: Service, task_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
    """The events behind this number, to the end: mostly `done`, unless that is not behind it.

    Raises `Refused`, and `Unavailable` when patience with the service has ended.
    """
    patience = service.patience()
    is_done = False
    while True:
        first = after
        try:
            async with service.events(task_id, after) as events:
                patience.renew()
                async for event in events:
                    after = event.number
                    yield event
                    if event.kind == DONE:
                        return
            # Where nothing came, there is nothing more, or the service is about to stop.
            if after == first and is_done:
                return
            is_done = (await service.task(task_id))["done"]
            await asyncio.sleep(0 if is_done else _PAUSE_SECONDS)
        except Unavailable as fault:
            await patience.bear(fault)
