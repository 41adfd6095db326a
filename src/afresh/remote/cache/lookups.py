"""Look-ups in a slow place, many at a time.

When a page opens, it asks for hundreds of results at once; a way to another thread and back for
each of them would cost more than all the look-ups together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from afresh.primitives.tasks import start_background

from .entry import CacheEntry, CacheKey

__all__ = ["Lookups"]

_MOST = 256
"""So many results are handed out in one turn of the event loop."""


class Lookups:
    """Gathers look-ups: those that are asked for while one is under way go together.

    Args:
        read: looks up many keys.
    """

    def __init__(
        self, read: Callable[[Sequence[CacheKey]], Awaitable[Sequence[CacheEntry | None]]]
    ) -> None:
        self._read = read
        self._asked: list[tuple[CacheKey, asyncio.Future[CacheEntry | None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: CacheKey) -> CacheEntry | None:
        """Look up one key."""
        answer: asyncio.Future[CacheEntry | None] = asyncio.get_running_loop().create_future()
        if self._task is not None and self._task.get_loop().is_closed():
            self._task = None
            self._asked = []  # nobody waits for these any more
        self._asked.append((key, answer))
        if self._task is None:
            self._task = start_background(self._run, name="look-ups in the cache")
        return await answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        asked: list[tuple[CacheKey, asyncio.Future[CacheEntry | None]]] = []
        try:
            while self._asked:
                asked, self._asked = self._asked[:_MOST], self._asked[_MOST:]
                entries = await self._read([key for key, _ in asked])
                for (_, answer), entry in zip(asked, entries, strict=True):
                    if not answer.done():
                        answer.set_result(entry)
        except Exception as error:
            for _, answer in (*asked, *self._asked):
                if not answer.done():
                    answer.set_exception(error)
        finally:
            if not loop.is_closed():  # or else this is only swept up, and others may be at work
                self._task = None
                for _, answer in (*asked, *self._asked):
                    answer.cancel()
                self._asked = []
