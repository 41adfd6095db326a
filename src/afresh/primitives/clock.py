"""The clock that all delays of afresh go through, so that a test can put its own in place.

`current_clock()` is what every other part asks; by default it is a `LoopClock`, which follows the
running event loop and survives a change of loops. `afresh.testing.FakeClock` is the one for tests.
Wall-clock time (dates, time zones) is no business of this module.

Clocks are not thread-safe: use a clock on the thread of the event loop it works for.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import os
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from .timers import Timer, TimerQueue

__all__ = [
    "Clock",
    "LoopClock",
    "Timer",
    "current_clock",
    "on_clock_change",
    "set_clock",
    "use_clock",
]

_RESOLUTION = time.get_clock_info("monotonic").resolution
"""Event loops may wake up early by this much (about 16 ms on Windows)."""

_LONGEST_NAP = 86_400.0
"""Not every event loop takes arbitrarily long delays, and waking up once a day is cheap."""


class Clock(ABC):
    """Monotonic time and timers: what `current_clock()` returns."""

    __slots__ = ("__weakref__",)

    @abstractmethod
    def now(self) -> float:
        """Seconds since some fixed but unknown moment; never goes back."""

    @abstractmethod
    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Run a callback later, once.

        Callbacks run in order of their due times, then in the order of these calls, each in an
        empty context of its own (context variables have their default values). An exception in one
        is logged to "afresh.clock".

        Args:
            delay: seconds from now; zero or less means as soon as the event loop gets to it,
                `math.inf` means never.
            callback: called without arguments.

        Returns:
            The timer; `cancel()` it to keep the callback from running.

        Raises:
            ValueError: `delay` is not a number.
        """

    def attach(self) -> None:
        """Make sure that timers fire on the running event loop, if one runs.

        Does nothing on clocks that need no loop.
        """
        return

    async def sleep(self, delay: float) -> None:
        """Wait for `delay` seconds of this clock; zero or less lets other tasks run once.

        Cancelling the wait cancels its timer.
        """
        if delay <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: _wake_up(future))
        try:
            await future
        finally:
            timer.cancel()


def _wake_up(sleeper: asyncio.Future[None]) -> None:
    # A loop may be closed while one of its tasks still sleeps; nobody is left to wake up then.
    if not sleeper.done() and not sleeper.get_loop().is_closed():
        sleeper.set_result(None)


class LoopClock(Clock):
    """Real time: `time.monotonic()`, with timers that fire on the running event loop.

    All timers share one handle of the event loop, armed for the earliest of them, so that
    cancelling a timer frees what its callback holds at once (an event loop keeps a cancelled
    handle, and the context it was made in, until it is due).

    No loop needs to run when a timer is made: it waits until the clock is attached to one.
    `call_later` and `sleep` attach by themselves to a running loop; `attach()` does it for code
    that only relies on timers made earlier. When the running loop is another one than before, all
    pending timers move to it. The clock keeps no loop alive, though what a pending callback refers
    to stays, as ever. Two loops that run in two threads need a clock each, and cannot share
    `current_clock()`.

    In a forked child process the clock starts empty: timers of the parent do not fire there.
    """

    __slots__ = ("_armed_until", "_handle", "_loop", "_timers")

    def __init__(self) -> None:
        self._timers = TimerQueue()
        # Weak, both: the handle refers to its loop, and the loop itself keeps the handle for as
        # long as it matters.
        self._loop: Callable[[], asyncio.AbstractEventLoop | None] = _nothing
        self._handle: Callable[[], asyncio.TimerHandle | None] = _nothing
        self._armed_until = math.inf
        _loop_clocks.add(self)

    def now(self) -> float:
        """Seconds of `time.monotonic()`."""
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Run a callback later, once; see `Clock.call_later`."""
        timer = self._timers.add(time.monotonic() + max(delay, 0.0), callback)
        self.attach()
        if timer.due < self._armed_until:
            self._arm()
        return timer

    def attach(self) -> None:
        """Make sure that pending timers fire on the running event loop, if one runs.

        Costs one comparison when that loop is the one of the last call.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._loop() is not loop:
            self._move_to(loop)

    @property
    def timers(self) -> int:
        """How many timers are pending."""
        return len(self._timers)

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        self._disarm()
        self._loop = weakref.ref(loop)
        self._arm()

    def _arm(self) -> None:
        due = self._timers.next_due()
        if due >= self._armed_until:
            return  # it wakes up early enough, and looks again then
        loop = self._loop()
        if loop is None or loop.is_closed():
            return  # the next attach() arms
        self._disarm()
        nap = min(max(due - time.monotonic(), 0.0), _LONGEST_NAP)
        # By delay, not by time: a loop's time() need not be time.monotonic().
        self._handle = weakref.ref(loop.call_later(nap, self._wake, context=contextvars.Context()))
        self._armed_until = due

    def _disarm(self) -> None:
        handle = self._handle()
        if handle is not None:
            handle.cancel()
        self._handle = _nothing
        self._armed_until = math.inf

    def _wake(self) -> None:
        self._handle = _nothing
        self._armed_until = math.inf
        try:
            self._timers.run_due(time.monotonic() + _RESOLUTION)
        finally:
            self._arm()

    def _forget_parent_process(self) -> None:
        # Kept, not dropped: dropping would finish the parent's suspended coroutines here, and their
        # cleanup could write to connections that the parent still uses.
        _timers_of_parent.append(self._timers)
        self._timers = TimerQueue()
        self._loop = _nothing
        self._handle = _nothing
        self._armed_until = math.inf


def _nothing() -> None:
    """Stands for a weak reference to nothing."""


_loop_clocks: weakref.WeakSet[LoopClock] = weakref.WeakSet()
_timers_of_parent: list[TimerQueue] = []
_current: Clock | None = None
_on_change: list[Callable[[], object]] = []


def current_clock() -> Clock:
    """The clock in use: the one set by `set_clock`, or else one `LoopClock` for all."""
    global _current
    if _current is None:
        _current = LoopClock()
    return _current


def set_clock(clock: Clock) -> Clock:
    """Put another clock in place for the whole process and return the previous one.

    Timers that are already pending stay with the clock that made them, so do this before anything
    starts.
    """
    global _current
    previous = current_clock()
    _current = clock
    if clock is not previous:
        for handler in _on_change:
            handler()
    return previous


def on_clock_change(handler: Callable[[], object]) -> None:
    """Call `handler` whenever another clock has been put in place, for as long as the process runs.

    For modules that keep a timer of their own running, and have to start it anew on that clock.
    """
    _on_change.append(handler)


@contextlib.contextmanager
def use_clock(clock: Clock) -> Iterator[Clock]:
    """Use another clock, in the whole process, while the block runs.

    ```python
    with use_clock(FakeClock()) as clock:
        ...
    ```
    """
    previous = set_clock(clock)
    try:
        yield clock
    finally:
        set_clock(previous)


def _after_fork_in_child() -> None:
    for clock in list(_loop_clocks):
        clock._forget_parent_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
