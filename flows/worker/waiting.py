"""Wait for the first of several events."""

import asyncio


async def first_of(*happened: asyncio.Event, within: float) -> None:
    """Return when one of the events is set, or after `within` seconds."""
    waiting = [asyncio.create_task(event.wait()) for event in happened]
    await asyncio.wait(waiting, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
