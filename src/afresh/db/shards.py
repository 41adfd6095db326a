"""One database, or one part of a database that is spread over several: a shard and its engines.

Knows nothing of sessions and operations, which take their connections here.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from afresh.errors import InvalidStateError

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


class Shard:
    """A database with the two engines that work on it; made by `open_shard`.

    Args:
        name: what the shard is called; "" where there is just one.
        database_name: how the names of its tables begin in what hosts tell each other.
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

    async def aclose(self) -> None:
        """Close the connections of engines that were made here; a temporary database goes.

        An engine that was handed in stays as it is. Closing again does nothing.
        """
        self._is_closed = True
        try:
            if self._is_owned:
                try:
                    await self.read.dispose()
                finally:
                    await self.write.dispose()
        finally:
            if self._remove_folder is not None:
                self._remove_folder()

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
        database_name: how the names of its tables begin in what hosts tell each other.
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
