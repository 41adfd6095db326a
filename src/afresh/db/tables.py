"""The tables that operations and events are logged to, in the same database as the data.

Declare them with the mixins beside other models, or have them added to metadata by one call: either
way Alembic sees them. Rows are written by the scope of an operation, and read and trimmed by
`afresh.db.logs`; whether a database has the tables is looked at by `afresh.db.check`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, Index, Integer, MetaData, SmallInteger, Table
from sqlalchemy.orm import Mapped, declared_attr, mapped_column, registry

from afresh.errors import DefinitionError

from .columns import (
    BIG,
    LONG,
    ZERO,
    UtcTimestamp,
    ascii_text,
    exact_text,
    marked_tables,
    table_name_of,
)

__all__ = [
    "EventLogMixin",
    "EventState",
    "LogTables",
    "OperationLogMixin",
    "add_log_tables",
    "find_log_tables",
]

_MARK = "afresh_log"
"""Key of `Column.info` that tells which log a table is."""


class OperationLogMixin:
    """Columns of the operation log, for a model of your own.

    A model with `__table_args__` of its own repeats those of the mixin in them:
    `(*OperationLogMixin.log_indexes("_operations"), {"sqlite_autoincrement": True})`.

    Example:
        ```python
        class OperationRow(OperationLogMixin, Base):
            __tablename__ = "_operations"
        ```
    """

    index: Mapped[int] = mapped_column(
        BIG,
        Identity(always=False),
        primary_key=True,
        info={_MARK: "operations"},
    )
    uuid: Mapped[str] = mapped_column(ascii_text(40), unique=True)
    host_id: Mapped[str] = mapped_column(exact_text(64))
    logged_at: Mapped[datetime] = mapped_column(UtcTimestamp)
    command: Mapped[str | None] = mapped_column(LONG)
    effects: Mapped[str | None] = mapped_column(LONG)

    @staticmethod
    def log_indexes(table_name: str) -> tuple[Index, ...]:
        """Return the indexes that a table of this name needs."""
        return (Index(f"ix_{table_name}_logged_at", "logged_at"),)

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> Any:
        # SQLite would give the index of a trimmed row away again.
        return (*cls.log_indexes(table_name_of(cls)), {"sqlite_autoincrement": True})


class EventState(enum.IntEnum):
    """What became of an event."""

    NEW = 0
    """To be processed when it is due."""
    PROCESSED = 1
    """Done; kept for a while, so that the same event is not processed again."""
    DEAD = 2
    """Failed for the last time; kept until somebody decides."""


class EventLogMixin:
    """Columns of the event log, for a model of your own.

    A model with `__table_args__` of its own repeats those of the mixin in them:
    `(*EventLogMixin.log_indexes("_events"), {})`.

    Example:
        ```python
        class EventRow(EventLogMixin, Base):
            __tablename__ = "_events"
        ```
    """

    uuid: Mapped[str] = mapped_column(exact_text(200), primary_key=True, info={_MARK: "events"})
    state: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)
    logged_at: Mapped[datetime] = mapped_column(UtcTimestamp)
    due_at: Mapped[datetime] = mapped_column(UtcTimestamp)
    value: Mapped[str] = mapped_column(LONG)
    chain: Mapped[str | None] = mapped_column(exact_text(200))
    attempts: Mapped[int] = mapped_column(Integer, server_default=ZERO)
    last_error: Mapped[str | None] = mapped_column(LONG)
    lease_owner: Mapped[str | None] = mapped_column(exact_text(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcTimestamp)
    lease_token: Mapped[str | None] = mapped_column(ascii_text(40))
    version: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    dead_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)

    @staticmethod
    def log_indexes(table_name: str) -> tuple[Index, ...]:
        """Return the indexes that a table of this name needs."""
        return (
            Index(f"ix_{table_name}_state_due_at", "state", "due_at"),
            Index(f"ix_{table_name}_due_at_state", "due_at", "state"),
        )

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> Any:
        return (*cls.log_indexes(table_name_of(cls)), {})


@dataclass(frozen=True, slots=True)
class LogTables:
    """The two tables of the logs.

    Args:
        operations: has the columns of `OperationLogMixin`.
        events: has the columns of `EventLogMixin`.
    """

    operations: Table
    events: Table


def add_log_tables(
    metadata: MetaData, *, schema: str | None = None, prefix: str = "_"
) -> LogTables:
    """Add the tables `_operations` and `_events` to metadata.

    Args:
        metadata: of the models, so that migrations and `create_all` include the tables.
        schema: where the tables are; the default schema of the metadata if not given.
        prefix: of the names of the tables.

    Raises:
        DefinitionError: the metadata has log tables already.

    Example:
        ```python
        tables = add_log_tables(Base.metadata)
        ```
    """
    if find_log_tables(metadata) is not None:
        raise DefinitionError(
            "The metadata has log tables already; find_log_tables(metadata) returns them."
        )
    models = registry(metadata=metadata)
    added = []
    for name, mixin in (("operations", OperationLogMixin), ("events", EventLogMixin)):
        indexes = mixin.log_indexes(prefix + name)
        keywords: dict[str, Any] = {"schema": schema}
        if mixin is OperationLogMixin:
            keywords["sqlite_autoincrement"] = True
        body = {"__tablename__": prefix + name, "__table_args__": (*indexes, keywords)}
        model: Any = models.mapped(type(f"{name.title()}Row", (mixin,), body))
        added.append(model.__table__)
    return LogTables(*added)


def find_log_tables(metadata: MetaData) -> LogTables | None:
    """Return the log tables of metadata, however they were declared; None if it has none.

    Raises:
        DefinitionError: it has one of the two only, or more than one of a kind.
    """
    found = marked_tables(metadata, _MARK)
    if not found:
        return None
    missing = {"operations", "events"} - found.keys()
    if missing:
        kind = missing.pop()
        mixin = "OperationLogMixin" if kind == "operations" else "EventLogMixin"
        raise DefinitionError(
            f"{next(iter(found.values())).name} has no table for the log of {kind} beside it; add "
            f"a model with {mixin}."
        )
    return LogTables(found["operations"], found["events"])
