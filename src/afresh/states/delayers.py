"""How long a state waits between going stale and computing its next value.

A delayer is asked once for each update and waits for as long as it sees fit. All waiting is done on
`current_clock()`. Which user action makes an update urgent is left to the tracker in
`afresh.states.ui_actions`.

Every delayer waits longer when the last attempt failed: instead of the usual delay, it takes the
one that `RetryDelays` gives for the number of retries. Cancelling the task that waits cancels the
wait, and leaves no timer behind.
"""

from __future__ import annotations

import asyncio
import functools
import math

from afresh.graph.computed import UpdateDelayer
from afresh.primitives.clock import Clock, current_clock
from afresh.primitives.delays import RetryDelays

from .ui_actions import UIActionTracker

__all__ = [
    "NEXT_TICK",
    "NO_DELAY",
    "YIELD",
    "DelayerDefaults",
    "FixedDelayer",
    "NextTickDelayer",
    "NoDelayer",
    "UIDelayer",
    "UpdateDelayer",
    "YieldDelayer",
    "as_delayer",
    "delayer_defaults",
]

_TICK = 0.015
_ROUNDING = 1e-6


class DelayerDefaults:
    """What delayers use where nothing else is given; the one in use is `delayer_defaults`.

    Delayers look at it each time they wait, so a change takes effect with the next wait.
    """

    __slots__ = ("_min_delay", "_update_delay", "retry_delays")

    def __init__(self) -> None:
        self._min_delay = 0.032
        self._update_delay = 1.0
        self.retry_delays: RetryDelays = RetryDelays.exponential(1, 60)
        """The delays after errors: from 1 s to 60 s, each √2 times the one before, ±10 %."""

    @property
    def min_delay(self) -> float:
        """The shortest delay of `FixedDelayer` and `UIDelayer`: 0.032 s, two frames of a screen.

        Whatever the cause, no state that has one of these updates more often.

        Raises:
            ValueError: it is set to a negative number.
        """
        return self._min_delay

    @min_delay.setter
    def min_delay(self, seconds: float) -> None:
        self._min_delay = _checked(seconds, "The shortest delay")

    @property
    def update_delay(self) -> float:
        """The delay of a `UIDelayer` that is given none: 1 s.

        Raises:
            ValueError: it is set to a negative number.
        """
        return self._update_delay

    @update_delay.setter
    def update_delay(self, seconds: float) -> None:
        self._update_delay = _checked(seconds, "The update delay")


delayer_defaults: DelayerDefaults = DelayerDefaults()
"""The defaults of all delayers of this process."""


class _RetryingDelayer:
    """The part that all delayers share: the delays after errors."""

    __slots__ = ("_retry_delays",)

    def __init__(self, *, retry_delays: RetryDelays | None = None) -> None:
        self._retry_delays = retry_delays

    @property
    def retry_delays(self) -> RetryDelays:
        """The delays after errors."""
        return delayer_defaults.retry_delays if self._retry_delays is None else self._retry_delays


class FixedDelayer(_RetryingDelayer):
    """Waits for the same time before each update.

    Args:
        seconds: the delay, zero or more; at least `delayer_defaults.min_delay` is waited in any
            case. `math.inf` never updates.
        retry_delays: the delays after errors.

    Raises:
        ValueError: `seconds` is negative or not a number.
    """

    __slots__ = ("_seconds",)

    def __init__(self, seconds: float, *, retry_delays: RetryDelays | None = None) -> None:
        super().__init__(retry_delays=retry_delays)
        self._seconds = _checked(seconds, "A delay")

    @staticmethod
    def get(seconds: float) -> FixedDelayer:
        """The shared delayer for this many seconds."""
        return _shared_fixed_delayer(float(seconds))

    @property
    def seconds(self) -> float:
        """How long an update is delayed when the last one succeeded."""
        return max(self._seconds, delayer_defaults.min_delay)

    async def delay(self, retry_count: int) -> None:
        """Wait for the fixed time, or for the retry delay when `retry_count` is above zero."""
        await current_clock().sleep(
            self.retry_delays[retry_count] if retry_count > 0 else self.seconds
        )

    def __repr__(self) -> str:
        return f"FixedDelayer({self._seconds:g})"


@functools.lru_cache(maxsize=256)
def _shared_fixed_delayer(seconds: float) -> FixedDelayer:
    return FixedDelayer(seconds)


class NoDelayer(_RetryingDelayer):
    """Does not wait at all, unless after an error; `NO_DELAY` is one that is ready to use.

    Unsafe: `delay(0)` does not even give way to other tasks, so a computation that never really
    waits either, and depends on something that it changes, holds up the whole event loop. Nor can
    the task be cancelled there; its next `await` can.
    """

    __slots__ = ()

    async def delay(self, retry_count: int) -> None:
        """Return at once, or wait for the retry delay when `retry_count` is above zero."""
        if retry_count > 0:
            await current_clock().sleep(self.retry_delays[retry_count])


class YieldDelayer(_RetryingDelayer):
    """Lets other tasks run once before each update; `YIELD` is one that is ready to use.

    Unsafe: two states that make each other stale keep one processor core busy.
    """

    __slots__ = ()

    async def delay(self, retry_count: int) -> None:
        """Let other tasks run, or wait for the retry delay when `retry_count` is above zero."""
        await current_clock().sleep(self.retry_delays[retry_count])


class NextTickDelayer(_RetryingDelayer):
    """Waits for the next of the ticks, 15 ms apart, that all delayers of this kind share.

    `NEXT_TICK` is one that is ready to use. What went stale within one tick is updated together.
    """

    __slots__ = ()

    async def delay(self, retry_count: int) -> None:
        """Wait for the next tick, or for the retry delay when `retry_count` is above zero."""
        clock = current_clock()
        if retry_count > 0:
            await clock.sleep(self.retry_delays[retry_count])
            return
        # Multiples of the tick on the clock's own scale: shared by all without anything that runs.
        now = clock.now()
        seconds = (math.floor(now / _TICK) + 1) * _TICK - now
        # Just woken by a tick, and rounding puts it ahead still: that one is over.
        await clock.sleep(seconds + _TICK if seconds < _ROUNDING else seconds)


NO_DELAY = NoDelayer()
"""Updates at once; see `NoDelayer` for its danger."""

YIELD = YieldDelayer()
"""Updates as soon as other tasks had a turn; see `YieldDelayer` for its danger."""

NEXT_TICK = NextTickDelayer()
"""Updates with the next 15 ms tick."""


class UIDelayer(_RetryingDelayer):
    """Waits before each update, but not after what the user just did.

    What others change may arrive a moment later; what follows from the user's own action must show
    at once. So the wait ends early when the tracker sees a user action, and does not start while
    one runs or just has ended. Never shorter than `delayer_defaults.min_delay` in all (than the
    shortest retry delay after an error), lest a state that goes stale all the time keeps the page
    busy.

    Args:
        tracker: the user's actions; without one, every wait is the full delay.
        delay: seconds, zero or more; `delayer_defaults.update_delay`, which is 1 s, when not given.
        retry_delays: the delays after errors.

    Raises:
        ValueError: `delay` is negative or not a number.
    """

    __slots__ = ("_delay", "_tracker")

    def __init__(
        self,
        tracker: UIActionTracker | None = None,
        delay: float | None = None,
        *,
        retry_delays: RetryDelays | None = None,
    ) -> None:
        super().__init__(retry_delays=retry_delays)
        self._tracker = tracker
        self._delay = None if delay is None else _checked(delay, "A delay")

    @property
    def tracker(self) -> UIActionTracker | None:
        """The user's actions that make updates urgent."""
        return self._tracker

    @property
    def seconds(self) -> float:
        """How long an update is delayed when the last one succeeded and the user does nothing."""
        delay = delayer_defaults.update_delay if self._delay is None else self._delay
        return max(delay, delayer_defaults.min_delay)

    async def delay(self, retry_count: int) -> None:
        """Wait for the delay, or for the retry delay when `retry_count` is above zero.

        An action of the user cuts both short.
        """
        if retry_count > 0:
            shortest = self.retry_delays.minimum
            seconds = max(self.retry_delays[retry_count], shortest)
        else:
            shortest = delayer_defaults.min_delay
            seconds = self.seconds
        clock = current_clock()
        if self._tracker is None:
            await clock.sleep(seconds)
            return
        start = clock.now()
        await _wait_for_action(self._tracker, clock, seconds)
        rest = start + shortest - clock.now()
        if rest > 0:
            await clock.sleep(rest)


async def _wait_for_action(tracker: UIActionTracker, clock: Clock, seconds: float) -> None:
    if tracker.instant_updates_enabled:
        await asyncio.sleep(0)  # also a wait of zero is one that can be cancelled
        return
    # A future with two ways to be done, rather than two tasks of which one must be put away.
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake_up(_: object = None) -> None:
        if not done.done() and not done.get_loop().is_closed():
            done.set_result(None)

    unsubscribe = tracker.on_action(wake_up)
    timer = clock.call_later(seconds, wake_up)
    try:
        await done
    finally:
        timer.cancel()
        unsubscribe()


def as_delayer(value: float | UpdateDelayer | None) -> UpdateDelayer:
    """Turn what users may pass as a delay into a delayer.

    Args:
        value: seconds, for a `FixedDelayer`; a delayer, which is returned as it is; or None, for
            a `UIDelayer` without a tracker, that is, for a delay of 1 s.

    Raises:
        ValueError: the seconds are negative or not a number.
        TypeError: `value` is none of these.
    """
    if value is None:
        return _default_delayer
    if isinstance(value, int | float):
        return FixedDelayer.get(value)
    if isinstance(value, UpdateDelayer) and not isinstance(value, type):
        return value
    raise TypeError(
        f"{value!r} is no delay; pass seconds, a delayer such as UIDelayer(tracker), or None."
    )


_default_delayer = UIDelayer()


def _checked(seconds: float, what: str) -> float:
    if not seconds >= 0:
        raise ValueError(f"{what} is {seconds}; pass seconds, 0 or more.")
    return float(seconds)
