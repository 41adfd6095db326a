"""`SqliteCache`: cached remote results in a file, there again after a restart."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from afresh.primitives.clock import current_clock

from .entry import CacheEntry, CacheKey
from .lookups import Lookups
from .remote_cache import RemoteCache, log
from .write_behind import Changes, Unchanged, WriteBehind

if TYPE_CHECKING:
    from .sqlite_file import SqliteFile

__all__ = ["SqliteCache"]

T = TypeVar("T")

_CLEARING_ATTEMPTS = 10


class SqliteCache(RemoteCache):
    """Keeps remote results in an SQLite file, which several processes may share.

    All work on the file is done in one thread of its own. Changes are collected and written
    together; a process that is killed loses those of the last moment. When there are too many
    entries, those leave that were not used for the longest time.

    The file is only a cache, and never makes the program fail. A damaged one is moved aside and
    begun anew; one that can't be used (the disk is full, it is read-only, it belongs to something
    else or to a newer version of afresh) is reported to the log once, and then nothing is cached.
    A new file can be read by its owner only.

    Args:
        path: the file; it and its directory are made when they are missing.
        version: raise it when results must not be reused, for example because their types changed:
            entries that were written under another version are dropped. "" reuses what is there.
        max_bytes: how many bytes of results to keep; the file takes somewhat more.
        flush_delay: how long changes are collected before they are written, in seconds.

    Raises:
        ValueError: `max_bytes` is less than one, or `flush_delay` negative or not finite.
    """

    def __init__(
        self,
        path: str | Path,
        version: str = "",
        *,
        max_bytes: int = 64 * 1024 * 1024,
        flush_delay: float = 0.25,
    ) -> None:
        # Here, for clients without such a cache, and for Pythons without SQLite.
        from .sqlite_file import SqliteFile

        super().__init__()
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}; a cache needs room for something.")
        if not 0 <= flush_delay < math.inf:
            raise ValueError(f"flush_delay is {flush_delay}; pass finite seconds, 0 or more.")
        self.path: Path = Path(path).expanduser().absolute()
        """Where the file is."""
        self.version: str = version
        """Entries of another version are not used."""
        self._file: SqliteFile = SqliteFile(self.path, version, max_bytes)
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "afresh cache")
        self._changes = WriteBehind(self._write, flush_delay, max_bytes)
        self._lookups = Lookups(self._read_many)
        self._is_closed = False
        # First in the queue of the thread, so whatever else is asked of it waits for it.
        self._opening = self._worker.submit(self._file.open)

    async def when_initialized(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self._opening))

    async def read(self, key: CacheKey) -> CacheEntry | None:
        change = self._changes.find(key)
        if not isinstance(change, Unchanged):
            return change
        entry = await self._lookups.get(key)
        change = self._changes.find(key)
        if not isinstance(change, Unchanged):
            return change
        if entry is not None:
            self._changes.note_use(key)
        return entry

    def set(self, entry: CacheEntry) -> None:
        if not self._is_closed:
            self._changes.add(entry.key, entry if self._file.has_room_for(entry) else None)

    def remove(self, key: CacheKey) -> None:
        if not self._is_closed:
            self._changes.add(key, None)

    async def clear(self) -> None:
        self._changes.clear()
        for attempt in range(_CLEARING_ATTEMPTS):
            if await self._in_worker(self._file.clear, True):
                return
            await current_clock().sleep(0.1 * attempt)
        log.error("The cache file %s stays locked, and could not be cleared.", self.path)

    async def flush(self) -> None:
        await self._changes.flush()

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._changes.close()
        finally:
            closing = self._worker.submit(self._file.close)
            self._worker.shutdown(wait=False)
            await asyncio.shield(asyncio.wrap_future(closing))

    async def _write(self, changes: Changes, used: Collection[CacheKey]) -> bool:
        return await self._in_worker(partial(self._file.write, changes, used), True)

    async def _read_many(self, keys: Sequence[CacheKey]) -> Sequence[CacheEntry | None]:
        return await self._in_worker(partial(self._file.read, keys), [None] * len(keys))

    async def _in_worker(self, work: Callable[[], T], otherwise: T) -> T:
        """The result of work done in the thread, or something else when that has ended."""
        try:
            future = self._worker.submit(work)
        except RuntimeError:  # closed, or the interpreter is about to end
            return otherwise
        return await asyncio.wrap_future(future)

    def __repr__(self) -> str:
        return f"<SqliteCache {self.path}{' closed' if self._is_closed else ''}>"
