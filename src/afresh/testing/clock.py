"""A clock that stands still until a test moves it.

Drives everything in afresh that waits: delays, keep-alive, timed invalidation. Real time, such as
`asyncio.sleep`, sockets and threads, is not its business and goes on as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Generator

from afresh.errors import InvalidStateError
from afresh.primitives.clock import Clock, Timer
from afresh.primitives.timers import TimerQueue

__all__ = ["FakeClock"]

_ROUNDING = 1e-9
"""0.1 + 0.1 + 0.1 is a little more than 0.3, and three sleeps must still fit into one
`advance(0.3)`."""

_BLIND_PASSES = 100
"""How many passes of a foreign event loop, whose queue cannot be looked at, count as idle."""


class FakeClock(Clock):
    """A clock for tests: time passes only in `advance` and `advance_sync`.

    ```python
    with use_clock(FakeClock()) as clock:
        sleeper = asyncio.ensure_future(clock.sleep(60))
        await clock.advance(60)
        assert sleeper.done()
        assert clock.timers == 0
    ```

    Args:
        start: what `now()` says first, in seconds.
        limit: how often in a row `advance` lets tasks run, or timers fire, without reaching an
            idle moment, before it gives up. Only code that spins, such as a loop around
            `asyncio.sleep(0)`, needs so many.
    """

    __slots__ = ("_advancing", "_limit", "_now", "_timers")

    def __init__(self, start: float = 0.0, *, limit: int = 10_000) -> None:
        self._now = start
        self._limit = limit
        self._timers = TimerQueue()
        self._advancing = False

    def now(self) -> float:
        """Seconds: where the clock started, plus all advances."""
        return self._now

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Run a callback once the clock has advanced by `delay`; see `Clock.call_later`."""
        return self._timers.add(self._now + max(delay, 0.0), callback)

    @property
    def timers(self) -> int:
        """How many timers are pending; 0 at the end of a test shows that none was left behind."""
        return len(self._timers)

    @property
    def next_due(self) -> float:
        """When the next timer fires, in seconds of `now()`; `math.inf` when none is pending."""
        return self._timers.next_due()

    async def advance(self, seconds: float) -> None:
        """Let time pass.

        Timers fire in order of their due time, `now()` being that time, and tasks run until idle
        before the first one, between those due at different times, and at the end (see `settle`).
        So a task that sleeps in a loop takes as many turns as fit.

        Args:
            seconds: zero or more; zero fires only what is due already.

        Raises:
            ValueError: `seconds` is negative, infinite or not a number.
            InvalidStateError: another `advance` runs, or tasks or timers never come to rest.
        """
        with contextlib.closing(self._moments(seconds)) as moments:
            for _ in moments:
                await self.settle()

    def advance_sync(self, seconds: float) -> None:
        """Let time pass for timers alone: tasks get no turn until the caller awaits something.

        For code that uses no tasks. Takes and raises the same as `advance`.
        """
        with contextlib.closing(self._moments(seconds)) as moments:
            for _ in moments:
                pass

    async def settle(self) -> None:
        """Let other tasks run until all of them wait for something else than their turn.

        The task that calls this gives up its turn until nothing else is queued in the event loop
        when it gets its next one. By then the loop has looked for ready sockets, too, but what is
        still on its way in a thread, in another process or in the network is not waited for, nor is
        `asyncio.sleep` with a delay. Event loops other than asyncio's own do not show their
        queue: there, a fixed number of turns has to do.

        Raises:
            InvalidStateError: tasks never come to rest.
        """
        # There is no public way to ask a loop whether it is idle. The queue of asyncio's own loops
        # has been a deque by this name for all of asyncio's life; a task that runs has been taken
        # out of it already.
        queue = getattr(asyncio.get_running_loop(), "_ready", None)
        for _ in range(_BLIND_PASSES if queue is None else self._limit):
            await asyncio.sleep(0)
            if queue is not None and not queue:
                return
        if queue is not None:
            raise InvalidStateError(
                f"Tasks were still running after {self._limit} turns of the event loop. One of "
                "them probably spins, for example around asyncio.sleep(0); let it wait for time "
                "or for an event, or pass a higher limit to FakeClock."
            )

    def _moments(self, seconds: float) -> Generator[None, None, None]:
        """Stop once before time moves, then after each moment at which timers fired."""
        if not 0 <= seconds < math.inf:
            raise ValueError(
                f"Time cannot move by {seconds} seconds; pass a finite number, 0 or more."
            )
        if self._advancing:
            raise InvalidStateError(
                "The clock is being advanced already; await that call first, and do not advance "
                "from timer callbacks."
            )
        self._advancing = True
        end = self._now + seconds
        turns_at_one_time = 0
        try:
            yield
            while (due := self._timers.next_due()) <= end + _ROUNDING:
                moment = max(self._now, min(due, end))
                turns_at_one_time = turns_at_one_time + 1 if moment == self._now else 0
                if turns_at_one_time > self._limit:
                    raise InvalidStateError(
                        f"Timers were still firing after {self._limit} turns at {moment} s. A "
                        "callback probably starts itself again without a delay; give it one, or "
                        "pass a higher limit to FakeClock."
                    )
                self._now = moment
                self._timers.run_due(due)
                yield
            self._now = end
        finally:
            self._advancing = False
