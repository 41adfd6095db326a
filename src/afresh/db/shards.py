"""A shard: a database, or one of the parts that it is spread over, with its engines.

Knows nothing of sessions and operations, which take their connections here. Which shards there are
is left to `shard_registry`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import weakref
from functools import cached_property
from pathlib import Path

from sqlalchemy import URL, event, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from afresh.errors import InvalidStateError
from afresh.primitives.clock import current_clock

from .engines import (
    Dialect,
    EngineOptions,
    IsolationLevel,
    check_isolation,
    create_read_engine,
    create_write_engine,
    derive_engines,
    dialect_of,
    is_in_memory,
)

__all__ = ["Shard", "open_shard"]

_logger = logging.getLogger("afresh.db")


class Shard:
    """A database with the two engines that work on it; made by `open_shard`.

    Args:
        name: what the shard is called; "" where there is just one.
        database_name: what its database is called in what hosts tell each other.
        write: the engine of commands' transactions.
        read: the engine of reads.
        is_owned: whether closing the shard disposes of the engines.
        folder: what goes when the shard is closed: the folder of a temporary database.
    """

    name: str
    database_name: str
    write: AsyncEngine
    read: AsyncEngine
    dialect: Dialect

    def __init__(
        self,
        name: str,
        database_name: str,
        write: AsyncEngine,
        read: AsyncEngine,
        *,
        is_owned: bool,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.database_name = database_name
        self.write = write
        self.read = read
        self.dialect = dialect_of(write.url)
        self._is_owned = is_owned
        self._is_closed = False
        self._closing = asyncio.Lock()
        self._remove_folder = (
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            if folder is not None
            else None
        )

    async def connect(self, isolation: IsolationLevel | None = None) -> AsyncConnection:
        """Take a connection for a transaction, which is not begun yet; close it afterwards.

        Args:
            isolation: of the transactions on this connection; the database's own level when not
                given. All of SQLite's are serializable.

        Raises:
            InvalidStateError: the shard was closed.
            ValueError: there is no such level.
        """
        self.check_open()
        if isolation is not None:
            check_isolation(isolation)
        connection = await self.write.connect()
        if isolation is None or self.dialect == "sqlite":
            return connection
        try:
            return await connection.execution_options(isolation_level=isolation)
        except BaseException:
            await connection.close()
            raise

    def check_open(self) -> None:
        """Refuse to work on a shard that was closed.

        Raises:
            InvalidStateError: it was.
        """
        if self._is_closed:
            raise InvalidStateError(
                f"The shard {self.name!r} was closed; open the database anew to use it."
            )

    async def aclose(self, *, patience: float = 5.0) -> None:
        """Close the connections of engines that were made here; a temporary database goes.

        An engine that was handed in stays as it is. Closing again does nothing.

        Args:
            patience: for how many seconds to wait for connections that are still in use.
        """
        self._is_closed = True
        async with self._closing:
            try:
                if self._is_owned:
                    try:
                        await _dispose(self.read, patience)
                    finally:
                        await _dispose(self.write, patience)
            finally:
                if self._remove_folder is not None:
                    self._remove_folder()

    @cached_property
    def stream(self) -> AsyncEngine:
        """The engine of reads whose rows come a few at a time, from the same pool as `read`."""
        if self.dialect == "postgresql" and self._is_owned:
            # Its cursors need a transaction.
            return self.read.execution_options(isolation_level="READ COMMITTED")
        return self.read

    @property
    def place(self) -> str:
        """How the names of its tables begin in what hosts tell each other."""
        return f"{self.database_name}/{self.name}" if self.name else self.database_name

    @property
    def is_closed(self) -> bool:
        """Whether `aclose()` was called."""
        return self._is_closed

    def __repr__(self) -> str:
        return f"<Shard {self.name!r} on {self.write.url!r}>"


def open_shard(
    name: str,
    database: str | URL | AsyncEngine,
    *,
    database_name: str = "default",
    options: EngineOptions | None = None,
) -> Shard:
    """Make a shard. Nothing is connected yet.

    Args:
        name: what it is called; "" where there is just one.
        database: a URL, or an engine that the caller made and goes on owning. A URL of SQLite
            without a file gives a temporary one, which goes when the shard is closed.
        database_name: what its database is called in what hosts tell each other.
        options: how engines are made out of a URL.

    Raises:
        ValueError: the URL names a database that afresh does not know.

    Example:
        ```python
        shard = open_shard("", "postgresql+asyncpg://localhost/shop")
        ```
    """
    if isinstance(database, AsyncEngine):
        write, read = derive_engines(database)
        return Shard(name, database_name, write, read, is_owned=False)
    url = make_url(database)
    folder = None
    if is_in_memory(url):
        folder = Path(tempfile.mkdtemp(prefix="afresh-"))
        url = url.set(database=str(folder / "memory.db"), query={})
    options = options or EngineOptions()
    is_temporary = folder is not None
    return Shard(
        name,
        database_name,
        create_write_engine(url, options, is_temporary=is_temporary),
        create_read_engine(url, options, is_temporary=is_temporary),
        is_owned=True,
        folder=folder,
    )


async def _dispose(engine: AsyncEngine, patience: float) -> None:
    try:
        if not await _all_returned(engine, patience):
            _logger.warning(
                "Connections of %r are in use, %s s after it was to be closed; close the sessions "
                "and connections that you open, best with `async with`.",
                engine.url,
                patience,
            )
    finally:
        # Nobody else closes what comes back to a pool that was disposed of.
        event.listen(engine.pool, "checkin", _close_connection)
        await engine.dispose()


def _close_connection(connection: object, entry: ConnectionPoolEntry) -> None:
    entry.invalidate()


async def _all_returned(engine: AsyncEngine, patience: float) -> bool:
    pool = engine.pool
    if not isinstance(pool, QueuePool) or not pool.checkedout():
        return True
    changed = asyncio.Event()

    def note(*_: object) -> None:
        changed.set()

    event.listen(pool, "checkin", note)
    clock = current_clock()
    due = clock.now() + patience
    timer = clock.call_later(patience, changed.set)
    try:
        while pool.checkedout() and clock.now() < due:
            changed.clear()
            await changed.wait()
    finally:
        timer.cancel()
        event.remove(pool, "checkin", note)
    return not pool.checkedout()
