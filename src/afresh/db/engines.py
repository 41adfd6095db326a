"""The engines of a shard: one pool for commands' transactions, one for reads.

Two pools, so that a read never waits for commands that hold connections. The read pool runs in
autocommit mode: a statement costs one round trip, none begins or ends a transaction, and the
database itself refuses writes there. Sessions, and what they refuse by themselves, are left to
`read_only`.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import (
    URL,
    Connection,
    ExceptionContext,
    PoolProxiedConnection,
    PoolResetState,
    event,
)
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import await_only

from afresh.errors import InvalidStateError

__all__ = [
    "WRITE_REFUSED",
    "Dialect",
    "EngineOptions",
    "IsolationLevel",
    "check_isolation",
    "create_read_engine",
    "create_write_engine",
    "derive_engines",
    "dialect_of",
    "is_in_memory",
]

Dialect = Literal["sqlite", "postgresql", "mysql"]
"""The databases that afresh knows; MariaDB counts as MySQL."""

IsolationLevel = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
"""What commands' transactions can ask for. On SQLite all of them are serializable."""

_BUSY_PERIOD = 0.1
"""For how many seconds a thread waits for the lock of SQLite before the task may be cancelled."""

WRITE_REFUSED = (
    "A session for reads can't write; make changes through `async with database.operation() as "
    "operation:`."
)
"""What to say where a write is refused."""

_ISOLATION_LEVELS = frozenset({"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How the engines of a shard are made.

    The sizes are such that four workers stay below the 100 connections that PostgreSQL allows by
    default.

    Args:
        write_connections: the most connections for commands' transactions; SQLite has one.
        read_connections: the most connections for reads.
        pool_timeout: for how many seconds to wait for a free connection.
        busy_timeout: for how many seconds SQLite waits while another process writes.
        arguments: more keyword arguments for SQLAlchemy's `create_async_engine`. What makes the
            two engines different can't be changed with them.
    """

    write_connections: int = 10
    read_connections: int = 10
    pool_timeout: float = 30.0
    busy_timeout: float = 30.0
    arguments: Mapping[str, Any] = field(default_factory=dict)


def dialect_of(url: URL) -> Dialect:
    """Tell which database a URL is about.

    Raises:
        ValueError: none that afresh knows.
    """
    match url.get_backend_name():
        case "sqlite":
            return "sqlite"
        case "postgresql":
            return "postgresql"
        case "mysql" | "mariadb":
            return "mysql"
        case other:
            raise ValueError(
                f"afresh doesn't know the database {other!r}; use sqlite+aiosqlite://, "
                "postgresql+asyncpg:// or mysql+asyncmy://."
            )


def check_isolation(isolation: str) -> None:
    """Refuse what is no isolation level of a command's transaction.

    Raises:
        ValueError: the message names those that there are.
    """
    if isolation not in _ISOLATION_LEVELS:
        raise ValueError(
            f"{isolation!r} is no isolation level; use one of "
            f"{', '.join(map(repr, sorted(_ISOLATION_LEVELS)))}."
        )


def is_in_memory(url: URL) -> bool:
    """Whether the URL means a SQLite database that no file holds."""
    database = url.database or ""
    return dialect_of(url) == "sqlite" and (
        database in {"", ":memory:"}
        or database.startswith("file::memory:")
        or url.query.get("mode") == "memory"
    )


def create_write_engine(
    url: URL, options: EngineOptions, *, is_temporary: bool = False
) -> AsyncEngine:
    """Make the engine for commands' transactions. Nothing is connected yet.

    Args:
        url: of a database; that of SQLite must name a file.
        options: sizes and times.
        is_temporary: the file goes when the program ends, so nothing needs to reach the disk.
    """
    if dialect_of(url) != "sqlite":
        engine = create_async_engine(url, **_arguments(options, options.write_connections))
    else:
        script = f"PRAGMA busy_timeout = {math.ceil(_BUSY_PERIOD * 1000)}"
        engine = _create_sqlite_engine(
            url, options, 1, script, is_temporary=is_temporary, pool_size=1
        )
        _begin_immediately(engine, options.busy_timeout)
    _end_with_the_transaction(engine)
    return engine


def create_read_engine(
    url: URL, options: EngineOptions, *, is_temporary: bool = False
) -> AsyncEngine:
    """Make the engine for reads, on which the database refuses to write. Nothing is connected yet.

    Args:
        url: of a database; that of SQLite must name a file.
        options: sizes and times.
        is_temporary: the file goes when the program ends, so nothing needs to reach the disk.
    """
    dialect = dialect_of(url)
    if dialect == "sqlite":
        engine = _create_sqlite_engine(
            url,
            options,
            options.read_connections,
            "PRAGMA query_only = ON",
            is_temporary=is_temporary,
        )
        _read_in_one_step(engine)
        return engine
    arguments = _arguments(options, options.read_connections)
    arguments["isolation_level"] = "AUTOCOMMIT"
    connect_arguments = dict(arguments.get("connect_args", {}))
    if dialect == "postgresql" and url.get_driver_name() == "asyncpg":
        settings = connect_arguments.get("server_settings", {})
        connect_arguments["server_settings"] = {**settings, "default_transaction_read_only": "on"}
    elif dialect == "postgresql":
        given = connect_arguments.get("options", "")
        connect_arguments["options"] = f"{given} -c default_transaction_read_only=on".strip()
    arguments["connect_args"] = connect_arguments
    engine = create_async_engine(url, **arguments)
    if dialect == "mysql":

        @event.listens_for(engine.sync_engine, "connect")
        def connect(connection: Any, record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("SET SESSION TRANSACTION READ ONLY")
            cursor.close()

    _read_in_one_step(engine)
    return engine


def derive_engines(engine: AsyncEngine) -> tuple[AsyncEngine, AsyncEngine]:
    """Make the engines for commands and for reads out of one that the user made, on its own pool.

    What they need is bound to them and not to the given engine, which goes on working as it did.
    One of SQLite that has listeners for `begin` is taken to begin its transactions by itself.
    """
    if dialect_of(engine.url) == "postgresql":
        return engine, engine.execution_options(postgresql_readonly=True)
    write = engine.execution_options()
    _end_with_the_transaction(write)
    if dialect_of(engine.url) == "mysql" or engine.sync_engine.dispatch.begin:
        return write, engine

    @event.listens_for(write.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return write, engine


def _arguments(options: EngineOptions, connections: int) -> dict[str, Any]:
    return {
        "poolclass": AsyncAdaptedQueuePool,  # older versions of SQLAlchemy have none for SQLite
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": options.pool_timeout,
        **options.arguments,
    }


def _create_sqlite_engine(
    url: URL,
    options: EngineOptions,
    connections: int,
    script: str,
    *,
    is_temporary: bool,
    **more: Any,
) -> AsyncEngine:
    arguments = {**_arguments(options, connections), **more}
    arguments["pool_reset_on_return"] = None  # in favour of the listener below
    arguments["connect_args"] = {
        "timeout": options.busy_timeout,
        "factory": _Connection,
        **arguments.get("connect_args", {}),
    }
    engine = create_async_engine(url, **arguments)
    durability = "PRAGMA synchronous = OFF;" if is_temporary else ""
    script = f"PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; {durability} {script}"

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, record: object) -> None:
        # The driver would begin transactions by itself, but not before a savepoint.
        connection.isolation_level = None
        await_only(connection.driver_connection.executescript(script))

    @event.listens_for(engine.sync_engine, "reset")
    def reset(connection: Any, record: object, state: PoolResetState) -> None:
        # Asked first, because a roll-back of nothing is a way to the connection's thread and back.
        if state.asyncio_safe and connection.driver_connection.in_transaction:
            connection.rollback()

    return engine


class _Connection(sqlite3.Connection):
    """Ends its transaction when it is closed, even while something still holds a cursor.

    SQLite itself lets such a connection, and its locks, live on until the last cursor is gone: that
    of a statement that was cancelled is in the traceback.
    """

    def close(self) -> None:
        if self.in_transaction:
            self.rollback()
        super().close()


def _begin_immediately(engine: AsyncEngine, busy_timeout: float) -> None:
    """Begin transactions with the write lock of SQLite.

    One that begins as a reader and writes later fails at once, without waiting, if another one
    wrote in between.
    """
    attempts = math.ceil(busy_timeout / _BUSY_PERIOD)

    def begin(dbapi_connection: PoolProxiedConnection) -> None:
        driver: Any = dbapi_connection.driver_connection
        for attempt in range(attempts, -1, -1):
            try:
                await_only(driver.execute("BEGIN IMMEDIATE"))
                return
            except sqlite3.OperationalError as error:
                if not attempt or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise

    engine.dialect.do_begin = begin  # type: ignore[method-assign]


def _end_with_the_transaction(engine: AsyncEngine) -> None:
    """Give a connection up whose transaction the database has rolled back by itself.

    A handler that goes on after such an error would commit the rest without what came before.
    PostgreSQL refuses that by itself.
    """
    if dialect_of(engine.url) == "postgresql":
        return

    @event.listens_for(engine.sync_engine, "handle_error")
    def look(context: ExceptionContext) -> None:
        connection = context.connection
        if connection is None or not connection.in_transaction() or connection.invalidated:
            return
        if connection.dialect.name == "sqlite":
            driver: Any = connection.connection.driver_connection
            is_over = not driver.in_transaction
        else:
            is_over = context.original_exception.args[:1] in _ENDING_ERRORS
        if is_over:
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False


_ENDING_ERRORS = ((1213,), (1020,))
"""A deadlock, and a row that changed since the snapshot: with them MariaDB rolls back."""


def _read_in_one_step(engine: AsyncEngine) -> None:
    """Roll nothing back where nothing was begun, and say what to do where a write is refused."""
    # As an argument for engines, it came with SQLAlchemy 2.0.43; older versions take a step more.
    engine.dialect.skip_autocommit_rollback = True

    @event.listens_for(engine.sync_engine, "handle_error", retval=True)
    def explain(context: ExceptionContext) -> BaseException | None:
        error = context.original_exception
        if (
            getattr(error, "sqlstate", None) == "25006"
            or getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY")
            or error.args[:1] == (1792,)
        ):
            return InvalidStateError(WRITE_REFUSED)
        return None
