"""Collects what the statements inside a block write, and forgets what is undone."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Table
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from afresh.errors import InvalidStateError

from .changes import HeldValues
from .facts import EVERYTHING, MAX_WRITE_ROWS, Row, TableName, Write
from .objects import FollowedSession

__all__ = ["WriteRecorder", "current_writer"]

_current: ContextVar[WriteRecorder | None] = ContextVar("afresh_write_recorder", default=None)


class _Journal:
    """The writes of one connection, in order, with the savepoints among them."""

    __slots__ = ("committed", "counts", "savepoints", "writes")

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.committed = 0
        self.savepoints: list[tuple[str, int]] = []
        self.counts: dict[TableName, int] = {}

    def add(self, write: Write) -> None:
        count = self.counts.get(write.table, 0)
        if count > MAX_WRITE_ROWS:
            return  # the whole table already
        if write.rows is None or count + len(write.rows) > MAX_WRITE_ROWS:
            write = Write(write.table)
            count = MAX_WRITE_ROWS + 1
        else:
            count += len(write.rows)
        self.counts[write.table] = count
        self.writes.append(write)

    def cut(self, length: int) -> None:
        """Forget all but the first writes."""
        kept = self.writes[:length]
        self.writes.clear()
        self.counts.clear()
        for write in kept:
            self.add(write)


class WriteRecorder:
    """A context manager in which statements of tracked engines tell which rows they change.

    Writes that are rolled back, whole or to a savepoint, are forgotten. Make a new recorder for
    each attempt of something that is retried.

    Args:
        session: whose objects tell what the rows that it flushes had before; without it, columns
            that a statement does not name may have had any value. Give it only where no other
            transaction can change those rows between their loading and the flush: with the
            isolation levels REPEATABLE READ and SERIALIZABLE, on SQLite, or where rows are locked
            as they are loaded.

    Example:
        ```python
        async with session_factory() as session:
            with WriteRecorder(session) as recorder:
                session.add(Order(user_id=1))
                await session.flush()
                stale = index.touched(recorder.writes)
                await session.commit()
        ```
    """

    __slots__ = ("_followed", "_journals", "_session", "_token")

    def __init__(self, session: AsyncSession | Session | None = None) -> None:
        self._session = session
        self._followed: FollowedSession | None = None
        self._journals: dict[Connection, _Journal] = {}
        self._token: Token[WriteRecorder | None] | None = None

    @property
    def writes(self) -> tuple[Write, ...]:
        """What was written and not rolled back, one for each table."""
        rows: dict[TableName, list[Row] | None] = {}
        for journal in self._journals.values():
            for write in journal.writes:
                before = rows.setdefault(write.table, [])
                if write.rows is None or before is None:
                    rows[write.table] = None
                else:
                    before.extend(write.rows)
        everything = {name.database for name in rows if name.name == EVERYTHING}
        return tuple(
            Write(name, None if found is None or len(found) > MAX_WRITE_ROWS else tuple(found))
            for name, found in rows.items()
            if name.name == EVERYTHING or name.database not in everything
        )

    def record(self, connection: Connection, write: Write) -> None:
        """Put a write on record, as statements do; for what no statement shows, like triggers.

        Args:
            connection: with whose transaction it counts or is forgotten.
            write: what is changed.
        """
        journal = self._journals.get(connection)
        if journal is None:
            journal = self._journals[connection] = _Journal()
        journal.add(write)
        if connection._is_autocommit_isolation():
            journal.committed = len(journal.writes)

    def held(self, table: Table, key: Mapping[str, Any]) -> HeldValues | None:
        """What an object of the session knows of a row: a part of the analysis."""
        return self._followed.values(table, key) if self._followed is not None else None

    def began_savepoint(self, connection: Connection, name: str) -> None:
        """A savepoint was set."""
        journal = self._journals.setdefault(connection, _Journal())
        journal.savepoints.append((name, len(journal.writes)))

    def rolled_back_to_savepoint(self, connection: Connection, name: str) -> None:
        """What was written since the savepoint is undone; the savepoint is still there."""
        journal = self._journals.get(connection)
        if journal is None:
            return
        while journal.savepoints:
            savepoint, length = journal.savepoints[-1]
            if savepoint == name:
                journal.cut(max(length, journal.committed))
                return
            journal.savepoints.pop()

    def rolled_back(self, connection: Connection) -> None:
        """What was written since the last commit is undone."""
        journal = self._journals.get(connection)
        if journal is not None:
            journal.savepoints.clear()
            journal.cut(journal.committed)

    def committed(self, connection: Connection) -> None:
        """What was written can't be undone any more."""
        journal = self._journals.get(connection)
        if journal is not None:
            journal.savepoints.clear()
            journal.committed = len(journal.writes)

    def __enter__(self) -> Self:
        if self._token is not None:
            raise InvalidStateError("This recorder is entered already; make a new one instead.")
        if self._session is not None:
            self._followed = FollowedSession(self._session)
        self._token = _current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)
        self._token = None
        if self._followed is not None:
            self._followed.close()
            self._followed = None


def current_writer() -> WriteRecorder | None:
    """The recorder of the innermost block around, if any."""
    return _current.get()
