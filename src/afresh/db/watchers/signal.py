"""What a log reader waits on between two reads."""

from __future__ import annotations

import asyncio
import math

from afresh.primitives.clock import current_clock

__all__ = ["Signal"]


class Signal:
    """Says that a log may hold something that its reader has not seen.

    It starts out set, since whoever just got it has not looked yet. Clear it before each read: what
    is set while the read goes on is then found by the next one.

    ```python
    signal = watcher.signal("operations")
    while True:
        signal.clear()
        await read()
        await signal.wait(period)
    ```
    """

    __slots__ = ("__weakref__", "_is_set", "_waiters")

    def __init__(self) -> None:
        self._is_set = True
        self._waiters: set[asyncio.Future[bool]] = set()

    @property
    def is_set(self) -> bool:
        """Whether something may have changed since the last `clear()`."""
        return self._is_set

    def clear(self) -> None:
        """Forget what was signalled so far; call it right before a read, not after."""
        self._is_set = False

    def set(self) -> None:
        """Wake up whoever waits; the signal stays set until the next `clear()`."""
        self._is_set = True
        for waiter in self._waiters:
            _answer(waiter, True)

    async def wait(self, timeout: float = math.inf) -> bool:
        """Wait until the signal is set.

        Args:
            timeout: the longest wait, in seconds of the current clock; zero or less only looks.

        Returns:
            Whether it was set; false when the time ran out first.
        """
        if self._is_set or timeout <= 0:
            return self._is_set
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        timer = current_clock().call_later(timeout, lambda: _answer(waiter, False))
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)


def _answer(waiter: asyncio.Future[bool], answer: bool) -> None:
    # The loop of a waiter may be closed by now, with the waiter's task still in it.
    if not waiter.done() and not waiter.get_loop().is_closed():
        waiter.set_result(answer)
