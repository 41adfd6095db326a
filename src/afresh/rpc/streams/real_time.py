"""The owner's side of a real-time stream: what is old is left out instead of waited for.

Everything else is as for other streams. What was numbered and sent stays: the consumer gets
consecutive numbers, and does not see on the wire that items between them are missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from .shared import SLICE, SharedStream

__all__ = ["RealTimeStream"]

BURST = 1024
"""A source that gives so many items without waiting for anything is not one to miss things of."""


class RealTimeStream(SharedStream):
    """A stream that the other side may read, with items left out if it is too slow.

    While the window is used up the source is read on, unless it never waits for anything. As many
    items as the window holds may wait; what comes then is left out until there is one that the
    stream can go on with, which takes the place of all that wait. After a reset, which follows a
    lost connection, the stream goes on with the next such item, and nothing is sent again.
    """

    __slots__ = ("_is_skipping",)

    _is_skipping: bool

    async def _read(self, source: AsyncIterator[Any]) -> None:
        items = self._items
        advance = self.stream.ack_advance
        can_skip_to = self.stream.can_skip_to
        burst = 0
        self._is_skipping = True
        async for item in source:
            if self._is_closed:
                return
            is_first = not self._is_turn_marked
            burst = 0 if is_first else burst + 1
            self._mark_turn()
            if can_skip_to is None or can_skip_to(item):
                self._is_skipping = False
                if len(items) >= advance:
                    self._flush()
                    del items[self._sent - self._first :]
            elif len(items) >= 2 * advance:
                self._is_skipping = True
            if not self._is_skipping:
                items.append(self._encode(item))
                self._check_last()
                if is_first:
                    self._flush()
            if burst > BURST or time.perf_counter() - self._turn_began_at > SLICE:
                await asyncio.sleep(0)
                if burst > BURST:
                    await self._wait_for_room(advance)
                    burst = 0
                self._mark_turn()  # the source did not wait, and may have more at once

    def _restart(self, index: int) -> None:
        if self._end is None:
            self._items.clear()
            self._is_skipping = True
        super()._restart(index)
