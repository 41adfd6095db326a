"""`RemoteCache`: what every cache of remote results can do.

A cache is only ever a guess at what the server would say: whoever reads from it asks the server as
well. So it may forget anything at any time, and nothing that goes wrong in it is worth an error;
what goes wrong is logged to "afresh.remote.cache", and counts as a miss.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from afresh.primitives.clock import current_clock

from . import metrics
from .entry import CacheEntry, CacheKey

__all__ = ["RemoteCache", "log"]

T = TypeVar("T")

log: logging.Logger = logging.getLogger("afresh.remote.cache")

_FAILED = "Could not read a cached result of %s; asking the server instead."


class RemoteCache(ABC):
    """Keeps results of remote compute methods, so that the next start has something to show.

    To make one of your own, override `read`, `set`, `remove` and `clear`, and what else differs.
    Caches are not thread-safe: use one on the thread of one event loop.
    """

    def __init__(self) -> None:
        metrics.start()

    async def get(self, key: CacheKey) -> CacheEntry | None:
        """Look up what is known; None when nothing is, or when it could not be read."""
        found = await self.get_value(key, _as_it_is)
        return None if found is None else found[0]

    async def get_value(
        self, key: CacheKey, decode: Callable[[bytes], T]
    ) -> tuple[CacheEntry, T] | None:
        """Look up what is known, and make a value of it.

        Args:
            key: what would be asked.
            decode: makes the value of the entry's `data`; if it fails, that is logged, and counts
                as a miss.
        """
        if not metrics.is_collecting():
            try:
                entry = await self.read(key)
                return None if entry is None else (entry, decode(entry.data))
            except Exception:
                log.exception(_FAILED, key.method)
                return None
        clock = current_clock()
        started = clock.now()
        outcome: metrics.Outcome = "error"
        try:
            entry = await self.read(key)
            found = None if entry is None else (entry, decode(entry.data))
            outcome = "miss" if found is None else "hit"
            return found
        except asyncio.CancelledError:
            outcome = "cancel"
            raise
        except Exception:
            log.exception(_FAILED, key.method)
            return None
        finally:
            metrics.record_lookup(clock.now() - started, outcome)

    @abstractmethod
    async def read(self, key: CacheKey) -> CacheEntry | None:
        """Fetch an entry from where it is kept. Call `get`, which puts up with errors of this."""

    @abstractmethod
    def set(self, entry: CacheEntry) -> None:
        """Keep an entry, in place of the one with the same key. Returns at once, never fails."""

    @abstractmethod
    def remove(self, key: CacheKey) -> None:
        """Forget an entry, if there is one. Returns at once, never fails."""

    @abstractmethod
    async def clear(self) -> None:
        """Forget all entries, those included that are still to be written."""

    async def flush(self) -> None:
        """Write what is still to be written, and return when that is done."""
        return

    async def aclose(self) -> None:
        """Write what is still to be written, and let go of files and threads.

        After that nothing more is kept. Closing it again does nothing.
        """
        await self.flush()

    async def when_initialized(self) -> None:
        """Return when the cache is ready. No need to wait for it: look-ups do so by themselves."""
        return


def _as_it_is(data: bytes) -> bytes:
    return data
