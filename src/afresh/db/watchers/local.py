"""Watchers that need nothing but this process."""

from __future__ import annotations

from afresh.primitives.clock import Timer, current_clock
from afresh.primitives.delays import RetryDelays

from .watcher import Watcher

__all__ = ["LocalWatcher", "PollingWatcher"]


class LocalWatcher(Watcher):
    """Wakes up the readers of this process, and nobody else.

    For databases that one process has to itself. Databases in one process that share a log may
    share one of these.
    """

    def health(self) -> dict[str, object]:
        return {"kind": "local", "connected": True}


class PollingWatcher(Watcher):
    """Has all logs read again and again, for databases that cannot tell of changes.

    Each turn costs one small query for each log and shard; what other hosts commit is seen after
    half the period on average.

    Args:
        period: seconds between two reads, give or take a tenth.
    """

    def __init__(self, period: float = 1.0) -> None:
        super().__init__()
        if not period > 0:
            raise ValueError(f"PollingWatcher: period is {period}; pass more than 0 seconds.")
        self._delays = RetryDelays.fixed(period)
        self._timer: Timer | None = None

    async def start(self) -> None:
        if self._timer is None:
            self._schedule()

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def health(self) -> dict[str, object]:
        return {
            "kind": "polling",
            "connected": self._timer is not None,
            "period": self._delays.minimum,
        }

    def _schedule(self) -> None:
        self._timer = current_clock().call_later(self._delays[1], self._turn)

    def _turn(self) -> None:
        self._schedule()
        self._wake_all()
