"""Changes of a cache on their way to where it is kept.

They wait for a moment, and then go together: the newest one for each key, in one batch. One batch
is written at a time. Whoever reads finds here what was changed and may not be written yet. How a
batch is written is left to the cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from afresh.primitives.clock import Timer, current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import start_background

from .entry import CacheEntry, CacheKey

__all__ = ["UNCHANGED", "Changes", "Unchanged", "WriteBehind"]

Changes = Mapping[CacheKey, CacheEntry | None]
"""The new entries by their keys; None for one that was removed."""


class Unchanged:
    """The type of `UNCHANGED`."""

    __slots__ = ()


UNCHANGED: Final = Unchanged()
"""What `find` says of a key that no change is known of."""

_USES_DELAY = 20
"""Uses are noted with the next changes, or after this many times their delay."""

_MOST_USES = 10_000
"""Uses beyond that are not noted, so that they never take much memory."""

_CLOSING_ATTEMPTS = 4


class WriteBehind:
    """Collects changes, and writes them after a delay.

    Args:
        write: writes a batch of changes and notes the keys that were used; returns whether that was
            possible. If not, the changes are tried again later.
        delay: how long the first change of a batch waits, in seconds.
        max_bytes: how many bytes may wait; if there are more, the oldest are dropped.
    """

    def __init__(
        self,
        write: Callable[[Changes, Collection[CacheKey]], Awaitable[bool]],
        delay: float,
        max_bytes: int,
    ) -> None:
        self._write = write
        self._delay = delay
        self._max_bytes = max_bytes
        self._retry_delays = RetryDelays.exponential(max(delay, 0.1), max(delay, 10.0), 2)
        self._failures = 0
        self._waiting: dict[CacheKey, CacheEntry | None] = {}
        self._waiting_bytes = 0
        self._being_written: dict[CacheKey, CacheEntry | None] = {}
        self._used: dict[CacheKey, None] = {}
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        self._batch_number = 0

    def find(self, key: CacheKey) -> CacheEntry | Unchanged | None:
        """The latest change of an entry that may not be written yet, or `UNCHANGED`."""
        change = self._waiting.get(key, UNCHANGED)
        return self._being_written.get(key, UNCHANGED) if change is UNCHANGED else change

    def add(self, key: CacheKey, entry: CacheEntry | None) -> None:
        """Note the change of an entry; None removes it."""
        waiting = self._waiting
        if key in waiting:
            self._waiting_bytes -= _size(key, waiting.pop(key))
        waiting[key] = entry
        self._waiting_bytes += _size(key, entry)
        self._drop_surplus()
        self._schedule(self._delay)

    def note_use(self, key: CacheKey) -> None:
        """Note that an entry was read from where it is kept."""
        if len(self._used) < _MOST_USES:
            self._used[key] = None
            self._schedule(self._delay * _USES_DELAY)

    def clear(self) -> None:
        """Forget all changes. A batch that is being written is not stopped, nor tried again."""
        self._waiting = {}
        self._waiting_bytes = 0
        self._being_written = {}
        self._used = {}
        self._stop_timer()

    async def flush(self) -> None:
        """Write now; returns when all that was noted before is written, or could not be."""
        if (task := self._running_task()) is not None:
            await asyncio.wait([task])
        task = self._running_task()  # somebody else may have waited for the same
        if task is None and (self._waiting or self._used):
            task = self._start()
        if task is not None:
            await asyncio.wait([task])

    async def close(self) -> None:
        """Write now, and if that is not possible, try again a few times before giving up."""
        for attempt in range(_CLOSING_ATTEMPTS):
            if attempt:
                await current_clock().sleep(0.1 * attempt)
            await self.flush()
            if not self._waiting:
                break
        self.clear()

    def _schedule(self, delay: float) -> None:
        if self._running_task() is not None:
            return  # it looks again when it is done
        if self._timer is not None:
            # After a failure, new changes must not hasten the next attempt.
            if self._failures or self._timer.due <= current_clock().now() + delay:
                return
            self._timer.cancel()
        self._timer = current_clock().call_later(delay, self._start)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _running_task(self) -> asyncio.Task[None] | None:
        task = self._task
        if task is not None and task.get_loop().is_closed():
            self._note_end(self._batch_number, is_written=False)  # it will never end by itself
        return self._task

    def _start(self) -> asyncio.Task[None]:
        self._stop_timer()
        self._batch_number += 1
        self._being_written, used = self._waiting, self._used
        self._waiting, self._waiting_bytes, self._used = {}, 0, {}
        self._task = start_background(
            lambda: self._run(self._batch_number, used), name="write to the cache"
        )
        return self._task

    async def _run(self, number: int, used: Collection[CacheKey]) -> None:
        is_written = False
        try:
            # Read here: it is empty if everything was cleared before this task got its first turn.
            is_written = await self._write(self._being_written, used)
        finally:
            self._note_end(number, is_written=is_written)

    def _note_end(self, number: int, *, is_written: bool) -> None:
        if self._task is None or number != self._batch_number:
            return
        self._task = None
        unwritten, self._being_written = self._being_written, {}
        if is_written:
            self._failures = 0
        else:
            self._failures += 1
            self._waiting = unwritten | self._waiting
            self._waiting_bytes = sum(_size(*change) for change in self._waiting.items())
            self._drop_surplus()
        if self._waiting:
            self._schedule(self._retry_delays[self._failures] or self._delay)
        elif self._used:
            self._schedule(self._delay * _USES_DELAY)

    def _drop_surplus(self) -> None:
        while self._waiting_bytes > self._max_bytes:
            oldest = next(iter(self._waiting))
            self._waiting_bytes -= _size(oldest, self._waiting.pop(oldest))


def _size(key: CacheKey, entry: CacheEntry | None) -> int:
    return len(key.arguments) + len(key.method) if entry is None else entry.size
