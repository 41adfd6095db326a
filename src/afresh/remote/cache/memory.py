"""`MemoryCache`: cached remote results in a dictionary; they go with the process."""

from __future__ import annotations

from collections import OrderedDict

from .entry import CacheEntry, CacheKey
from .remote_cache import RemoteCache

__all__ = ["MemoryCache"]

_OVERHEAD = 400
"""Bytes that Python takes for an entry, its key and their place in the dictionary."""

_KEPT = 0.9
"""What is left when some have to go: this much of what there is room for, so that they go many at a
time."""


class MemoryCache(RemoteCache):
    """Keeps remote results in memory: for tests, and for clients that come and go in one process.

    When there are too many, those leave that were not used for the longest time.

    Args:
        max_bytes: roughly how much memory it may take.

    Raises:
        ValueError: `max_bytes` is less than one.
    """

    def __init__(self, *, max_bytes: int = 64 * 1024 * 1024) -> None:
        super().__init__()
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}; a cache needs room for something.")
        self._max_bytes = max_bytes
        self._entries: OrderedDict[CacheKey, CacheEntry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """How many entries it holds."""
        return len(self._entries)

    async def read(self, key: CacheKey) -> CacheEntry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def set(self, entry: CacheEntry) -> None:
        self.remove(entry.key)
        size = entry.size + _OVERHEAD
        if size > self._max_bytes * _KEPT:
            return
        self._entries[entry.key] = entry
        self._bytes += size
        if self._bytes > self._max_bytes:
            while self._bytes > self._max_bytes * _KEPT:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.size + _OVERHEAD

    def remove(self, key: CacheKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size + _OVERHEAD

    async def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    async def aclose(self) -> None:
        """Do nothing: there is nothing to let go of, and the next client may want the entries."""
