"""The file of a `SqliteCache`: everything that touches SQLite, for one worker thread to call.

Nothing here raises: the file may be damaged, locked, on a full disk, or not a cache at all, and the
program goes on. What can be mended is mended: a damaged file is moved aside, a locked one is tried
again. Otherwise the file is given up: from then on nothing is found, and nothing is written.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from afresh.primitives.clock import current_clock

from .entry import CacheEntry, CacheKey
from .remote_cache import log
from .write_behind import Changes

__all__ = ["SqliteFile"]

T = TypeVar("T")

_APPLICATION_ID = 0x61667268
_SCHEMA = 1
_TABLES = (
    "DROP TABLE IF EXISTS entries",
    "DROP TABLE IF EXISTS facts",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        data BLOB NOT NULL,
        hash BLOB NOT NULL,
        checksum INTEGER NOT NULL,
        used INTEGER NOT NULL,
        size INTEGER NOT NULL
    )
    """,
    "CREATE INDEX entries_by_use ON entries (used, size)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_SCHEMA}",
)
"""`used` counts batches: the number of the one that wrote the entry, or noted that it was read."""

_OVERHEAD = 120
"""Bytes that a row takes beside the data."""

_KEPT = 0.9
"""What is left when some have to go: this much of what there is room for."""

_ROWS = 100
"""Rows per statement. SQLite's module lets go of the interpreter's lock for each step of a
statement, and has to wait to get it back while the event loop is busy; so: few steps."""

_BREATH = 0.0001
"""Seconds to sleep after each statement that writes. Or else this thread would take the lock again
before the thread of the event loop is awake, which then waits for 5 ms until it may insist."""

_BUSY_TIMEOUT = 0.1
"""Seconds to wait for another process that writes; look-ups wait as long."""

_PATIENCE = 1.0
"""Seconds for which the file is tried at first: others may be making it at this moment, and SQLite
does not wait for everything that they do."""

_PAUSE = 1.0
"""Seconds between two attempts to open a locked file."""


class _NotOurs(Exception):
    """The file is not ours to use; says why."""


class _Damaged(Exception):
    """The file holds something else than was written; says what."""


class SqliteFile:
    """Entries in a file. Not thread-safe: one thread at a time.

    Args:
        path: where the file is, or will be.
        version: entries that were written under another version are dropped; "" takes what is
            there.
        max_bytes: how many bytes of entries it may hold.
    """

    def __init__(self, path: Path, version: str, max_bytes: int) -> None:
        self._path = path
        self._version = version
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._is_over = False
        self._was_moved_aside = False
        self._was_locked = False
        self._opens_again_at = -math.inf
        self._patience = _PATIENCE
        self._uncounted = max_bytes

    def __del__(self) -> None:
        self.close()

    def open(self) -> None:
        """Open the file now, rather than when it is first used."""
        self._attempt(lambda _: True)

    def has_room_for(self, entry: CacheEntry) -> bool:
        """Whether an entry would be kept; safe to call from any thread."""
        return _size(entry) <= self._max_bytes * _KEPT

    def read(self, keys: Sequence[CacheKey]) -> list[CacheEntry | None]:
        """Look entries up; None for each one that is not there."""
        found = self._attempt(lambda connection: [_read(connection, key) for key in keys])
        return [None] * len(keys) if found is None else found

    def write(self, changes: Changes, used: Collection[CacheKey]) -> bool:
        """Write a batch in one transaction; False if that should be tried again later."""
        done = self._attempt(lambda connection: self._write(connection, changes, used))
        return done is not None or self._is_over

    def clear(self) -> bool:
        """Delete all entries; False if that should be tried again later."""
        return self._attempt(_delete_all) is not None or self._is_over

    def close(self) -> None:
        """Close the file for good."""
        self._is_over = True
        self._disconnect()

    # -- opening

    def _attempt(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """What `action` returns, or None if it could not be done."""
        for _ in range(2):
            try:
                connection = self._opened()
                return None if connection is None else action(connection)
            except Exception as error:
                if not self._mend(error):
                    break
        return None

    def _opened(self) -> sqlite3.Connection | None:
        if self._connection is None and not self._is_over:
            if current_clock().now() < self._opens_again_at:
                return None
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # What the server tells this user is nobody else's business. Only for a new file: to
            # close one that SQLite has open would drop the locks of this process on it.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            give_up_at = time.monotonic() + self._patience
            self._patience = 0.0
            while self._connection is None:
                try:
                    self._connect()
                except sqlite3.OperationalError as error:
                    if not _is_locked(error) or time.monotonic() >= give_up_at:
                        raise
                    time.sleep(0.01)
        return self._connection

    def _connect(self) -> None:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        is_current = _has_our_tables(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if is_current and self._has_our_version(connection):
            return
        with _transaction(connection):  # and look again: another process may do the same
            if not _has_our_tables(connection):
                for statement in _TABLES:
                    connection.execute(statement)
            if not self._has_our_version(connection):
                connection.execute("DELETE FROM entries")
                connection.execute(
                    "INSERT OR REPLACE INTO facts VALUES ('version', ?)", (self._version,)
                )

    def _has_our_version(self, connection: sqlite3.Connection) -> bool:
        if not self._version:
            return True
        stored = connection.execute("SELECT value FROM facts WHERE name = 'version'").fetchone()
        return bool(stored == (self._version,))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # -- failing

    def _mend(self, error: Exception) -> bool:
        """Whether to try again at once."""
        if _is_locked(error):
            self._opens_again_at = current_clock().now() + _PAUSE
            log.log(
                logging.DEBUG if self._was_locked else logging.WARNING,
                "The cache file %s is locked by another process; trying again later.",
                self._path,
            )
            self._was_locked = True
            return False
        try:
            if _is_damaged(error) and not self._was_moved_aside:
                self._move_aside(error)
                return True
        except OSError as reason:
            error = reason
        if not self._is_over:
            log.warning(
                "The cache file %s can't be used, so nothing is cached in it: %s. Mend or delete "
                "it, or name another one.",
                self._path,
                str(error) or type(error).__name__,
            )
            self.close()
        return False

    def _move_aside(self, error: Exception) -> None:
        self._disconnect()
        self._was_moved_aside = True
        aside = f"{self._path}.damaged"
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").replace(aside + suffix)
        log.warning(
            "The cache file %s is damaged (%s); it was moved to %s, and a new one is begun.",
            self._path,
            error,
            aside,
        )

    # -- writing

    def _write(
        self, connection: sqlite3.Connection, changes: Changes, used: Collection[CacheKey]
    ) -> bool:
        with _transaction(connection):
            (number,) = connection.execute(
                "SELECT coalesce(max(used), 0) + 1 FROM entries"
            ).fetchone()
            for batch in _batches(changes.items()):
                rows = [_row(entry, number) for _, entry in batch if entry]
                if rows:
                    connection.execute(_insertion(len(rows)), [*chain.from_iterable(rows)])
                gone = [_digest(key) for key, entry in batch if not entry]
                if gone:
                    connection.execute(
                        f"DELETE FROM entries WHERE key IN ({_marks(len(gone))})", gone
                    )
                self._uncounted += sum(row[-1] for row in rows)
                time.sleep(_BREATH)
            for keys in _batches(used):
                connection.execute(
                    f"UPDATE entries SET used = ? WHERE key IN ({_marks(len(keys))})",
                    [number, *map(_digest, keys)],
                )
            if self._uncounted >= self._max_bytes // 64:
                self._uncounted = 0
                self._make_room(connection)
        return True

    def _make_room(self, connection: sqlite3.Connection) -> None:
        (size,) = connection.execute("SELECT coalesce(sum(size), 0) FROM entries").fetchone()
        if size > self._max_bytes:
            connection.execute(
                """
                DELETE FROM entries WHERE id IN (
                    SELECT id FROM (
                        SELECT id, sum(size) OVER (ORDER BY used, id) - size AS before FROM entries
                    )
                    WHERE before < ?
                )
                """,
                (size - self._max_bytes * _KEPT,),
            )


def _code(error: Exception) -> int:
    """What SQLite calls the error, without the details; 255 if it is none of its own."""
    return getattr(error, "sqlite_errorcode", -1) & 0xFF


def _is_locked(error: Exception) -> bool:
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _is_damaged(error: Exception) -> bool:
    # SQLITE_ERROR is a statement that makes no sense; ours do, unless the tables are not ours.
    damages = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
    return isinstance(error, _Damaged) or _code(error) in damages


def _has_our_tables(connection: sqlite3.Connection) -> bool:
    """Whether tables for entries are there; False if they may be made.

    Raises:
        _NotOurs: something else is there.
    """
    # In this order: another process may make the tables, and say whose they are, at any moment.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID and (application or tables):
        raise _NotOurs("it is a database of something else")
    if application == _APPLICATION_ID and schema > _SCHEMA:
        raise _NotOurs("it was written by a newer version of afresh")
    return bool(application == _APPLICATION_ID and schema == _SCHEMA)


def _read(connection: sqlite3.Connection, key: CacheKey) -> CacheEntry | None:
    digest = _digest(key)
    row = connection.execute(
        "SELECT data, hash, checksum FROM entries WHERE key = ?", (digest,)
    ).fetchone()
    if row is None:
        return None
    data, hash_bytes, checksum = row
    if checksum != _checksum(digest, data, hash_bytes):
        raise _Damaged("an entry is not as it was written")
    return CacheEntry(key, data, hash_bytes.decode("utf-8", "surrogatepass"))


def _delete_all(connection: sqlite3.Connection) -> bool:
    with _transaction(connection):
        connection.execute("DELETE FROM entries")
    return True


def _row(entry: CacheEntry, number: int) -> tuple[bytes, bytes, bytes, int, int, int]:
    digest = _digest(entry.key)
    hash_bytes = entry.hash.encode("utf-8", "surrogatepass")
    checksum = _checksum(digest, entry.data, hash_bytes)
    return digest, entry.data, hash_bytes, checksum, number, _size(entry)


def _size(entry: CacheEntry) -> int:
    return len(entry.data) + len(entry.hash) + _OVERHEAD


def _digest(key: CacheKey) -> bytes:
    """Stands for a key, which may be long; cryptographic, so that no two keys share one."""
    method = key.method.encode("utf-8", "surrogatepass")
    parts = (key.format_key.encode(), method, key.arguments)
    return blake2b(b"\0".join(parts), digest_size=16).digest()


def _checksum(digest: bytes, data: bytes, hash_bytes: bytes) -> int:
    """SQLite does not notice when the disk gives back other bytes than it was given."""
    return zlib.crc32(data, zlib.crc32(hash_bytes, zlib.crc32(digest)))


@functools.lru_cache(maxsize=_ROWS)
def _insertion(rows: int) -> str:
    return "INSERT OR REPLACE INTO entries (key, data, hash, checksum, used, size) VALUES " + (
        ",".join(["(?,?,?,?,?,?)"] * rows)
    )


def _marks(count: int) -> str:
    return ",".join("?" * count)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, _ROWS)):
        yield batch


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
