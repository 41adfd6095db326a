"""One cache for several clients: `open_cache`, and the handles that it gives out."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .entry import CacheEntry, CacheKey
from .memory import MemoryCache
from .remote_cache import RemoteCache
from .sqlite import SqliteCache

__all__ = ["SharedCache", "open_cache"]

T = TypeVar("T")


class _Holder:
    """A cache, and the number of those who use it."""

    def __init__(self, cache: RemoteCache, *, is_ours: bool) -> None:
        self.cache = cache
        self.is_ours = is_ours
        self.users = 0


_files: weakref.WeakValueDictionary[tuple[Path, int], _Holder] = weakref.WeakValueDictionary()
"""By path and thread: a cache belongs to one thread, while a file may be opened many times."""


class SharedCache(RemoteCache):
    """One client's part in a cache that others may use as well; `open_cache` makes it.

    All it does goes to that cache. Closing it writes what is still to be written; the cache itself
    is closed only if it was opened for these clients, and this is the last of them.
    """

    def __init__(self, holder: _Holder) -> None:
        super().__init__()
        self._holder = holder
        self._cache = holder.cache
        self._is_closed = False
        holder.users += 1

    async def get_value(
        self, key: CacheKey, decode: Callable[[bytes], T]
    ) -> tuple[CacheEntry, T] | None:
        return None if self._is_closed else await self._cache.get_value(key, decode)

    async def read(self, key: CacheKey) -> CacheEntry | None:
        return None if self._is_closed else await self._cache.read(key)

    def set(self, entry: CacheEntry) -> None:
        if not self._is_closed:
            self._cache.set(entry)

    def remove(self, key: CacheKey) -> None:
        if not self._is_closed:
            self._cache.remove(key)

    async def clear(self) -> None:
        if not self._is_closed:
            await self._cache.clear()

    async def flush(self) -> None:
        if not self._is_closed:
            await self._cache.flush()

    async def when_initialized(self) -> None:
        await self._cache.when_initialized()

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._holder.users -= 1
        if not self._holder.is_ours or self._holder.users:
            await self._cache.flush()
            return
        for place, holder in list(_files.items()):
            if holder is self._holder:  # whoever opens the file from now on opens it anew
                del _files[place]
        await self._cache.aclose()

    def __repr__(self) -> str:
        return f"<SharedCache of {self._cache!r}{' closed' if self._is_closed else ''}>"


def open_cache(given: RemoteCache | str | Path | None, *, version: str = "") -> RemoteCache | None:
    """Make what a client caches in of what its user asked for.

    Clients in one thread that name the same file share one cache; the last one closes it.

    Args:
        given: the path of a file, for a `SqliteCache`; ":memory:", for a `MemoryCache`; a cache,
            which the client will not close; None, for none.
        version: the version of the results in a file; see `SqliteCache`.

    Returns:
        A cache that the client closes when it is done.

    Raises:
        ValueError: the file is in use with another version.
    """
    if given is None:
        return None
    if isinstance(given, RemoteCache):
        return SharedCache(_Holder(given, is_ours=False))
    if given == ":memory:":
        return MemoryCache()
    path = Path(given).expanduser().resolve()
    place = (path, threading.get_ident())
    holder = _files.get(place)
    if holder is None:
        holder = _files[place] = _Holder(SqliteCache(path, version), is_ours=True)
    elif isinstance(holder.cache, SqliteCache) and version not in {"", holder.cache.version}:
        raise ValueError(
            f"The cache file {path} is in use with version {holder.cache.version!r}, and can't be "
            f"opened with version {version!r} as well; use one version, or another file."
        )
    return SharedCache(holder)
