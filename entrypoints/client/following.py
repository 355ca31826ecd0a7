"""The events of a task, each once and in order, however often their stream is cut."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from entrypoints.client.service import Event, Service, Unavailable

DONE = "done"


async def follow(service: Service, task_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
    """The events behind this number, to the end: mostly `done`, unless that is not behind it.

    A service that is gone is waited for as patiently as it may be; then what it failed with is
    raised, as is what it refuses.
    """
    patience = service.patience()
    is_done = False
    while True:
        first = after
        try:
            async with aclosing(service.events(task_id, after)) as events:
                async for event in events:
                    patience.renew()
                    after = event.number
                    yield event
                    if event.kind == DONE:
                        return
            # An end without an event: the log has no more, or the service is about to stop.
            if after == first and is_done:
                return
            is_done = (await service.task(task_id))["done"]
        except Unavailable as fault:
            await patience.bear(fault)
