"""Read-your-writes across hosts: what a reader must have seen, as a short text.

A token names the last operation of each log that somebody knows of. A host that is handed one waits
until it has applied them, and then answers with nothing older than that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeAlias
from urllib.parse import quote, unquote

from afresh.primitives.clock import current_clock

__all__ = ["Freshness", "FreshnessGate", "Log"]

_log = logging.getLogger("afresh.operations")

Log: TypeAlias = tuple[str, str]
"""A log of operations: the names of the database and of the shard."""

MAX_LOGS = 100
"""Logs that a token may name."""
_WARN_EVERY = 10.0


class Freshness(Mapping[Log, int]):
    """The index of the last operation that is known of, for each log. Immutable.

    Args:
        indexes: by log.

    Example:
        ```python
        token = str(Freshness({("default", ""): 1204}))  # "default/@1204"
        ```
    """

    __slots__ = ("_indexes",)

    def __init__(self, indexes: Mapping[Log, int] | None = None) -> None:
        self._indexes = dict(indexes or {})

    @classmethod
    def parse(cls, token: str) -> Freshness:
        """Return what a token stands for.

        Raises:
            ValueError: it is no token.
        """
        indexes: dict[Log, int] = {}
        parts = token.split(",") if token else []
        if len(parts) > MAX_LOGS:
            raise ValueError(f"A freshness token names {len(parts)} logs; {MAX_LOGS} are allowed.")
        for part in parts:
            place, at, index = part.rpartition("@")
            database, slash, shard = place.partition("/")
            if not (at and slash and index.isascii() and index.isdigit() and len(index) < 20):
                raise ValueError(f"{token[:80]!r} is no freshness token.")
            indexes[unquote(database), unquote(shard)] = int(index)
        return cls(indexes)

    def merged(self, other: Mapping[Log, int]) -> Freshness:
        """Return what both together know of."""
        indexes = self._indexes | {
            log: max(index, self._indexes.get(log, index)) for log, index in other.items()
        }
        return Freshness(indexes)

    def __getitem__(self, log: Log) -> int:
        return self._indexes[log]

    def __iter__(self) -> Iterator[Log]:
        return iter(self._indexes)

    def __len__(self) -> int:
        return len(self._indexes)

    def __str__(self) -> str:
        return ",".join(
            f"{quote(database, safe='')}/{quote(shard, safe='')}@{index}"
            for (database, shard), index in self._indexes.items()
        )

    def __repr__(self) -> str:
        return f"<Freshness {self}>"


class FreshnessGate:
    """Lets readers wait until this host has applied what they know of."""

    def __init__(self) -> None:
        self.waited: int = 0
        """How often a reader had to wait."""
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

    def health(self) -> dict[str, int]:
        """Return how often readers waited, and how often in vain."""
        return {"waited": self.waited, "missed": self.missed}

    def __repr__(self) -> str:
        return f"<FreshnessGate of {len(self._logs)} logs>"
