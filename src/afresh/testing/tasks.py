"""A check that code under test leaves no task behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

__all__ = ["no_tasks_left"]

_TURNS = 20
"""How many turns of the event loop tasks get that are about to end, for example because somebody
just cancelled them."""


@contextlib.asynccontextmanager
async def no_tasks_left() -> AsyncIterator[None]:
    """Check that every task started inside an ``async with`` block is done at its end.

    What only has to finish its last steps gets the time for that. When the block itself fails,
    nothing is checked. The fixture of the same name puts this around a whole test.

    Raises:
        AssertionError: names each task that still runs, and where it waits.

    Example:
        ```python
        async with no_tasks_left():
            async with ComputedState(total) as state:
                ...
        ```
    """
    __tracebackhide__ = True
    before = asyncio.all_tasks()
    yield
    for _ in range(_TURNS):
        if not asyncio.all_tasks() - before:
            return
        await asyncio.sleep(0)
    if left := asyncio.all_tasks() - before:
        raise AssertionError(_told(left))


def _told(tasks: Collection[asyncio.Task[object]]) -> str:
    lines = ["Tasks still run that were started here; stop what started them, or await them:"]
    for task in sorted(tasks, key=lambda each: each.get_name()):
        lines.append(f"  {task.get_name()}")
        for frame in task.get_stack(limit=1):
            lines[-1] += f", at {frame.f_code.co_filename}:{frame.f_lineno}"
    return "\n".join(lines)
