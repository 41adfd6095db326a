"""Collects what the statements of one transaction write, and forgets what is undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Table
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from afresh.errors import InvalidStateError

from .changes import HeldValues
from .facts import EVERYTHING, MAX_WRITE_ROWS, Row, TableName, Value, Write
from .objects import FollowedSession

__all__ = ["WriteRecorder", "writer_of"]

_OPTION: Final = "afresh_write_recorder"

Later: TypeAlias = Callable[[], tuple[Write, Sequence[str]]]
_Key: TypeAlias = tuple[tuple[str, Value], ...]

# Where a row can't change between the statement that loads it and the one that changes it without
# the transaction failing. With MariaDB's and MySQL's REPEATABLE READ it can: queries see what was,
# and updates change what is.
STABLE: Final = {
    "postgresql": frozenset({"REPEATABLE READ", "SERIALIZABLE"}),
    "mysql": frozenset({"SERIALIZABLE"}),
    "mariadb": frozenset({"SERIALIZABLE"}),
}


class WriteRecorder:
    """Sees which rows the statements of a connection change, whatever task runs them.

    Its engine must be tracked. Writes that are rolled back to a savepoint are forgotten. Make a new
    recorder for each transaction, so also for each attempt of something that is retried.

    Args:
        connection: whose statements count from now on; started already.
        isolation: the level of its transaction, where that is known. It decides whether objects are
            trusted; see `follow`.

    Example:
        ```python
        with engine.begin() as connection, FollowedSession(connection) as session:
            recorder = WriteRecorder(connection, isolation="SERIALIZABLE")
            recorder.follow(session)
            session.add(Order(user_id=1))
            session.flush()
            stale = index.touched(recorder.writes)
        ```
    """

    __slots__ = (
        "_counts",
        "_distrusted",
        "_executing",
        "_followed",
        "_is_stable",
        "_later",
        "_savepoints",
        "_writes",
    )

    def __init__(
        self, connection: AsyncConnection | Connection, isolation: str | None = None
    ) -> None:
        sync = _sync(connection)
        stable = STABLE.get(sync.dialect.name, ())
        self._is_stable = sync.dialect.name == "sqlite" or (
            isolation is not None and isolation.replace("_", " ").upper() in stable
        )
        self._writes: list[tuple[Write, tuple[str, ...]]] = []
        """In order, each with the names of the columns that tell the rows apart."""
        self._executing: object = None
        self._later: Later | None = None
        self._savepoints: list[tuple[str, int]] = []
        self._counts: dict[TableName, int] = {}
        self._followed: list[FollowedSession] = []
        self._distrusted: set[TableName] | None = set()
        """The tables whose objects are not to be trusted any more; None is all."""
        sync.execution_options(**{_OPTION: self})

    def follow(self, session: AsyncSession | Session) -> None:
        """Let the objects of a session tell what the rows that it flushes had before.

        An UPDATE names the key and the changed columns only; without an object to ask, all others
        may have had any value. Does nothing where another transaction might change a row between
        its loading and the flush: objects are asked on SQLite, with REPEATABLE READ and
        SERIALIZABLE on PostgreSQL, and with SERIALIZABLE on MariaDB and MySQL.

        Args:
            session: one that uses the connection, of the class `FollowedSession`; objects that it
                loads from now on are asked.

        Raises:
            TypeError: the session is of another class.
        """
        sync = session.sync_session if isinstance(session, AsyncSession) else session
        if not isinstance(sync, FollowedSession):
            raise TypeError(
                f"{session!r} can't be followed; make it with sync_session_class=FollowedSession."
            )
        if self._is_stable:
            sync.begin_to_follow()
            self._followed.append(sync)

    @property
    def writes(self) -> tuple[Write, ...]:
        """What was written and not rolled back to a savepoint, one for each table."""
        self._settle()
        tables: dict[TableName, _Rows | None] = {}
        for write, key in self._writes:
            rows = tables.setdefault(write.table, _Rows())
            if write.rows is None or rows is None:
                tables[write.table] = None
            else:
                rows.add(write.rows, key)
        everything = {name.database for name in tables if name.name == EVERYTHING}
        return tuple(
            Write(name, None if rows is None else rows.all())
            for name, rows in tables.items()
            if name.name == EVERYTHING or name.database not in everything
        )

    def record(self, write: Write, key: Sequence[str] = ()) -> None:
        """Put a write on record, as statements do; for what no statement shows, like triggers.

        Args:
            write: what is changed.
            key: the names of the columns that tell its rows apart, for rows that have them.
        """
        self._settle()
        if self._distrusted is not None and not all(_key_of(row, key) for row in write.rows or ()):
            # Which objects are of these rows can't be told, so any may be behind from now on.
            self._distrusted.add(write.table)
        self._add(write, tuple(key))

    # -- for the tracker, whose events come here

    def execute(self, execution: object, record: Callable[[], None]) -> None:
        """A statement is about to run.

        Args:
            execution: the same object for all batches of one statement.
            record: puts what it writes on record.
        """
        if execution is not self._executing:
            self._settle()
            self._executing = execution
            record()

    def record_later(self, later: Later) -> None:
        """Put a write on record that is known when its statement has run.

        Args:
            later: gives what `record` takes.
        """
        self._later = later

    def _settle(self) -> None:
        later, self._later = self._later, None
        if later is not None:
            self.record(*later())

    def held(self, name: TableName, table: Table, key: Mapping[str, Any]) -> HeldValues | None:
        """What an object of a followed session knows of a row."""
        if self._distrusted is None or name in self._distrusted:
            return None
        for followed in self._followed:
            values = followed.values_of(table, key)
            if values is not None:
                return values
        return None

    def began_savepoint(self, name: str) -> None:
        """A savepoint is set."""
        self._settle()
        self._savepoints.append((name, len(self._writes)))

    def rolled_back_to_savepoint(self, name: str) -> None:
        """What was written since the savepoint is undone; the savepoint is still there."""
        self._settle()
        self.distrust_all()
        while self._savepoints:
            savepoint, length = self._savepoints[-1]
            if savepoint == name:
                kept = self._writes[:length]
                self._writes.clear()
                self._counts.clear()
                for write, key in kept:
                    self._add(write, key)
                return
            self._savepoints.pop()

    def distrust_all(self) -> None:
        """No object is to be trusted any more: it may keep values that are undone."""
        self._distrusted = None

    def _add(self, write: Write, key: tuple[str, ...]) -> None:
        count = self._counts.get(write.table, 0)
        if count > MAX_WRITE_ROWS:
            return  # the whole table already
        if write.rows is None or count + len(write.rows) > MAX_WRITE_ROWS:
            write = Write(write.table)
            count = MAX_WRITE_ROWS + 1
        else:
            count += len(write.rows)
        self._counts[write.table] = count
        self._writes.append((write, key))


class _Rows:
    """The changed rows of a table, those of one key made one.

    An object may not have seen what another statement did to its row. What is known of the row
    before and after the transaction is in what all statements about it know together.
    """

    __slots__ = ("by_key", "others")

    def __init__(self) -> None:
        self.by_key: dict[_Key, Row] = {}
        self.others: list[Row] = []

    def add(self, rows: tuple[Row, ...], names: tuple[str, ...]) -> None:
        for row in rows:
            key = _key_of(row, names)
            if key is None:
                self.others.append(row)
                continue
            before = self.by_key.get(key)
            self.by_key[key] = (
                row
                if before is None
                else {name: values | before[name] for name, values in row.items() if name in before}
            )

    def all(self) -> tuple[Row, ...]:
        return (*self.by_key.values(), *self.others)


def _key_of(row: Row, names: Sequence[str]) -> _Key | None:
    """The one key that a row had and has; None where it is not known, or was another."""
    found = []
    for name in names:
        values = row.get(name)
        if values is None or len(values) != 1:
            return None
        (value,) = values
        found.append((name, value))
    return tuple(found) or None


def writer_of(context: ExecutionContext) -> WriteRecorder | None:
    """The recorder of the connection on which something is executed, if it has one."""
    found: WriteRecorder | None = context.execution_options.get(_OPTION)
    return found


def _sync(connection: AsyncConnection | Connection) -> Connection:
    if isinstance(connection, Connection):
        return connection
    started = connection.sync_connection
    if started is None:
        raise InvalidStateError(
            "The connection is not started, so it has no transaction whose writes could be seen; "
            "await it, or enter it, before making a WriteRecorder."
        )
    return started
