"""Timers in order of their due time, without a clock.

Holds callbacks until they are due and hands them out in order; when "now" is, and who wakes up to
look, is left to the clocks (`afresh.primitives.clock`, `afresh.testing.clock`).
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
import math
from collections.abc import Callable

__all__ = ["Timer", "TimerQueue"]

_logger = logging.getLogger("afresh.clock")

_SMALL = 64
"""Up to this many entries, cancelled ones are not worth a rebuild."""


class Timer:
    """A callback that waits for its time; what `Clock.call_later` returns."""

    __slots__ = ("__weakref__", "_callback", "_due", "_queue")

    def __init__(self, due: float, callback: Callable[[], object], queue: TimerQueue) -> None:
        self._due = due
        self._callback: Callable[[], object] | None = callback
        self._queue: TimerQueue | None = queue

    @property
    def due(self) -> float:
        """When the callback runs, in seconds of the clock's `now()`."""
        return self._due

    @property
    def is_active(self) -> bool:
        """True until the callback has run or the timer is cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Keep the callback from running and let go of it at once; a second call does nothing."""
        if self._callback is None:
            return
        self._callback = None
        queue, self._queue = self._queue, None
        if queue is not None:
            queue._note_cancelled()

    def _take_callback(self) -> Callable[[], object] | None:
        callback, self._callback, self._queue = self._callback, None, None
        return callback

    def __repr__(self) -> str:
        return f"<Timer due={self._due:.3f} {'active' if self.is_active else 'inactive'}>"


class TimerQueue:
    """Timers, earliest first; timers due at the same time keep the order in which they were added.

    Cancelling costs O(1): a cancelled timer stays in the heap as an empty husk until it surfaces,
    or until husks are more than half of the heap and it is rebuilt without them.
    """

    __slots__ = ("_cancelled", "_heap", "_sequence")

    def __init__(self) -> None:
        # Tuples, because heapq compares them in C; the sequence number breaks ties, so timers
        # themselves are never compared.
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._cancelled = 0

    def __len__(self) -> int:
        """How many timers are still active."""
        return len(self._heap) - self._cancelled

    @property
    def heap_size(self) -> int:
        """How many entries are kept, husks of cancelled timers included."""
        return len(self._heap)

    def add(self, due: float, callback: Callable[[], object]) -> Timer:
        """Add a callback to run at `due`, in seconds of the clock that asks.

        Raises:
            ValueError: `due` is not a number.
        """
        if math.isnan(due):
            raise ValueError("A timer's delay is NaN; pass seconds, 0 or more (math.inf: never).")
        timer = Timer(due, callback, self)
        heapq.heappush(self._heap, (due, self._sequence, timer))
        self._sequence += 1
        return timer

    def next_due(self) -> float:
        """When the earliest active timer is due; `math.inf` when there is none."""
        heap = self._heap
        while heap:
            due, _, timer = heap[0]
            if timer.is_active:
                return due
            heapq.heappop(heap)
            self._cancelled -= 1
        return math.inf

    def run_due(self, now: float) -> int:
        """Run the callbacks due at `now` or before, in order, and return how many ran.

        Each callback runs in an empty context of its own. An exception is logged and does not stop
        the others; what is no `Exception`, such as `KeyboardInterrupt`, passes through and leaves
        the rest for the next call. Timers that callbacks add wait for the next call, even with a
        due time that has come, so a callback that re-arms itself cannot hold up the loop.
        """
        heap = self._heap
        added_from_here = self._sequence
        count = 0
        while self.next_due() <= now and heap[0][1] < added_from_here:
            callback = heapq.heappop(heap)[2]._take_callback()
            assert callback is not None  # next_due() leaves an active timer on top
            count += 1
            try:
                contextvars.Context().run(callback)
            except (Exception, asyncio.CancelledError):
                _logger.exception("The timer callback %r raised an error.", callback)
        return count

    def _note_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > _SMALL and self._cancelled * 2 > len(self._heap):
            # In place: run_due() holds on to the list.
            self._heap[:] = [entry for entry in self._heap if entry[2].is_active]
            heapq.heapify(self._heap)
            self._cancelled = 0
