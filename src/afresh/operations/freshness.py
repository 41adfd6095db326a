"""Read-your-writes across hosts: readers wait until this host has applied what they know of.

What that is they bring along, as a `Freshness`; how far this host has come, the readers of its logs
know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from afresh.commands.context import current
from afresh.primitives.clock import current_clock
from afresh.primitives.freshness import Freshness, Log

if TYPE_CHECKING:
    from .operation import Operation

__all__ = ["Freshness", "FreshnessGate", "Log", "tell_caller"]

_log = logging.getLogger("afresh.operations")

_WARN_EVERY = 10.0


class FreshnessGate:
    """Lets readers wait until this host has applied what they know of."""

    def __init__(self) -> None:
        self.waited: int = 0
        """How often a reader came with something to wait for, if it was not here already."""
        self.missed: int = 0
        """How often it waited in vain, and was served with what was there."""
        self._logs: dict[Log, Callable[[int, float], Awaitable[bool]]] = {}
        self._warned_at = -_WARN_EVERY

    def add(self, log: Log, wait_for: Callable[[int, float], Awaitable[bool]]) -> None:
        """Make a log known that this host follows.

        Args:
            log: which one.
            wait_for: waits until the operations up to an index are applied, so many seconds at
                most; returns whether they are.
        """
        self._logs[log] = wait_for

    def remove(self, log: Log) -> None:
        """Forget a log."""
        self._logs.pop(log, None)

    async def wait(self, freshness: Mapping[Log, int], timeout: float) -> bool:
        """Wait until everything that is known of is applied here.

        Logs that this host does not follow do not count: nothing here is read from them.

        Args:
            freshness: what is known of.
            timeout: seconds to wait at most.

        Returns:
            Whether it is applied.
        """
        waiting = [
            wait_for(index, timeout)
            for log, index in freshness.items()
            if (wait_for := self._logs.get(log)) is not None
        ]
        if not waiting:
            return True
        self.waited += 1
        if len(waiting) == 1:
            arrived = await waiting[0]
        else:
            arrived = all(await asyncio.gather(*waiting))
        if not arrived:
            self.missed += 1
            now = current_clock().now()
            if now - self._warned_at >= _WARN_EVERY:
                self._warned_at = now
                _log.warning(
                    "What a caller has seen elsewhere was not applied here within %g s, so it is "
                    "served with what is there (%d times so far).",
                    timeout,
                    self.missed,
                )
        return arrived

    def gate(self, timeout: float) -> Callable[[str], Awaitable[bool]]:
        """Return what lets calls of other processes wait.

        Args:
            timeout: seconds that a call waits at most.

        Returns:
            A function that takes the token, and returns whether all that it tells of is applied.
        """

        async def wait(token: str) -> bool:
            try:
                freshness = Freshness.parse(token)
            except ValueError as error:
                _log.debug("A caller is served with what is there: %s", error)
                return False
            return await self.wait(freshness, timeout)

        return wait

    def health(self) -> dict[str, int]:
        """Return how often readers waited, and how often in vain."""
        return {"waited": self.waited, "missed": self.missed}

    def __repr__(self) -> str:
        return f"<FreshnessGate of {len(self._logs)} logs>"


def tell_caller(operation: Operation) -> None:
    """Leave in the context of a command what readers have to know of to see what it has changed."""
    context = current.get()
    if context is not None and operation.command is not None:
        context.outermost.freshness = str(operation.freshness)
