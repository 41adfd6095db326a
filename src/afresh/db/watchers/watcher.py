"""What all watchers share: whose readers to wake up, and when.

A watcher carries no data and makes no promise: what it says is "look now". Readers look anyway
every few seconds, so a notification that gets lost costs time, never a change. How hosts tell each
other is left to the watchers themselves.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

from .signal import Signal

__all__ = ["LogKind", "Watcher"]

LogKind: TypeAlias = Literal["operations", "events", "outbox"]
"""The logs of a database: what happened, what is yet to be handled, what is yet to be published."""


class Watcher(ABC):
    """Tells log readers, on this host and on others, that a log has grown.

    One watcher serves all logs of one `Database`, on the event loop that it was started on.
    """

    def __init__(self) -> None:
        self._signals: dict[tuple[LogKind, str], weakref.WeakSet[Signal]] = {}

    def signal(self, kind: LogKind, shard: str = "") -> Signal:
        """Make the signal of one reader.

        Each call makes another one, which is set along with the rest for as long as somebody
        keeps it.

        Args:
            kind: the log that is read.
            shard: the shard that it belongs to.
        """
        signal = Signal()
        self._signals.setdefault((kind, shard), weakref.WeakSet()).add(signal)
        return signal

    def changed(self, kind: LogKind, shard: str = "", *, own: bool = True) -> None:
        """Say that this host has committed something to a log.

        Wakes up the readers of this host at once and the others as soon as it can. Never waits and
        never raises; many calls in a row cost the others one message or two.

        Args:
            kind: the log.
            shard: the shard that it belongs to.
            own: whether the readers of this host have something to do, too.
        """
        if own:
            self._wake(kind, shard)
        self._tell(kind, shard)

    async def start(self) -> None:
        """Begin to listen for other hosts.

        Returns when listening, or after a short while when that does not work out: the watcher then
        goes on trying, and `health()` says why. Never fails.
        """
        return

    async def aclose(self) -> None:
        """Stop listening, and let go of connections; may be called more than once."""
        return

    @abstractmethod
    def health(self) -> dict[str, object]:
        """How the watcher is doing.

        Returns:
            `kind`, the name of what it works with; `connected`, whether notifications of other
            hosts arrive now; further numbers that depend on the kind.
        """

    def _tell(self, kind: LogKind, shard: str) -> None:
        """Tell the other hosts, in the background."""
        return

    def _wake(self, kind: LogKind, shard: str) -> None:
        signals = self._signals.get((kind, shard))
        if signals is None:
            return
        for signal in signals:
            signal.set()
        if not signals:
            del self._signals[kind, shard]  # a shard that nobody reads any more

    def _wake_all(self) -> None:
        for kind, shard in list(self._signals):
            self._wake(kind, shard)
