"""The tables of the outbox and the inbox, in the same database as the data.

Messages wait in the outbox until the broker has confirmed them; the inbox remembers which messages
of others were handled. Declare them with the mixins, or have them added to metadata by one call.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    literal_column,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Mapped, declared_attr, mapped_column, registry

from afresh.db.check import require_tables
from afresh.db.columns import (
    BIG,
    LONG,
    ZERO,
    UtcTimestamp,
    exact_text,
    marked_tables,
    table_name_of,
)
from afresh.errors import DefinitionError

__all__ = [
    "BrokerTables",
    "InboxMixin",
    "OutboxLeaseMixin",
    "OutboxMixin",
    "OutboxState",
    "add_broker_tables",
    "check_broker_tables",
    "find_broker_tables",
    "is_in",
]

_MARK = "afresh_broker"
"""Key of `Column.info` that tells which table it is."""


class OutboxState(enum.IntEnum):
    """What became of a message."""

    NEW = 0
    """To be published."""
    PUBLISHED = 1
    """Confirmed by the broker; kept for a while."""
    DEAD = 2
    """Not to be published; kept until somebody decides."""


def is_in(state: ColumnElement[int], value: OutboxState) -> ColumnElement[bool]:
    """Whether messages are in a state: written out, as databases don't see that an index of those
    in one state fits a query for a state that is a parameter.
    """
    return state == literal_column(str(value.value), Integer)


class OutboxMixin:
    """Columns of the outbox, for a model of your own.

    Example:
        ```python
        class OutboxRow(OutboxMixin, Base):
            __tablename__ = "_outbox"
        ```
    """

    id: Mapped[int] = mapped_column(
        BIG, Identity(always=False), primary_key=True, info={_MARK: "outbox"}
    )
    message_id: Mapped[str] = mapped_column(exact_text(200), unique=True)
    destination: Mapped[str] = mapped_column(exact_text(200))
    key: Mapped[str | None] = mapped_column(exact_text(200))
    bucket: Mapped[int] = mapped_column(SmallInteger)
    type: Mapped[str] = mapped_column(exact_text(200))
    content_type: Mapped[str] = mapped_column(exact_text(100))
    headers: Mapped[str] = mapped_column(LONG)
    body: Mapped[bytes] = mapped_column(
        LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    )
    operation_uuid: Mapped[str] = mapped_column(exact_text(40))
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp)
    not_before: Mapped[datetime | None] = mapped_column(UtcTimestamp)
    state: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)
    attempts: Mapped[int] = mapped_column(Integer, server_default=ZERO)
    next_attempt_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)
    last_error: Mapped[str | None] = mapped_column(LONG)
    published_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)

    @staticmethod
    def outbox_indexes(table_name: str) -> tuple[Index, ...]:
        """Return the indexes that a table of this name needs.

        Each holds the messages that it is for and nothing else, where the database has such
        indexes: to be published, tried again or delayed, dead, and published.
        """

        def index(name: str, where: str, *columns: str) -> Index:
            return Index(
                f"ix_{table_name}_{name}",
                *columns,
                postgresql_where=text(where),
                sqlite_where=text(where),
            )

        waits = "state = 0 AND next_attempt_at IS NOT NULL"
        return (
            index("new", "state = 0", "state", "id", "bucket"),
            index("next_attempt_at", waits, "state", "next_attempt_at"),
            index("key", waits, "key", "state", "next_attempt_at"),
            index("dead", "state = 2", "state", "id"),
            index("published_at", "state = 1", "state", "published_at"),
        )

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> Any:
        return (*cls.outbox_indexes(table_name_of(cls)), {"sqlite_autoincrement": True})


class OutboxLeaseMixin:
    """Columns of the leases on buckets of the outbox: which host publishes them."""

    bucket: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, info={_MARK: "leases"}
    )
    owner: Mapped[str | None] = mapped_column(exact_text(64))
    epoch: Mapped[int] = mapped_column(BIG, server_default=ZERO)
    expires_at: Mapped[datetime] = mapped_column(UtcTimestamp)


class InboxMixin:
    """Columns of the inbox: messages that a group has handled."""

    group: Mapped[str] = mapped_column(exact_text(100), primary_key=True, info={_MARK: "inbox"})
    source: Mapped[str] = mapped_column(exact_text(200), primary_key=True)
    message_id: Mapped[str] = mapped_column(exact_text(200), primary_key=True)
    handled_at: Mapped[datetime] = mapped_column(UtcTimestamp, index=True)


@dataclass(frozen=True, slots=True)
class BrokerTables:
    """The tables that messages need.

    Args:
        outbox: has the columns of `OutboxMixin`.
        leases: has the columns of `OutboxLeaseMixin`.
        inbox: has the columns of `InboxMixin`.
    """

    outbox: Table
    leases: Table
    inbox: Table


_MIXINS: dict[str, tuple[str, type]] = {
    "outbox": ("outbox", OutboxMixin),
    "leases": ("outbox_leases", OutboxLeaseMixin),
    "inbox": ("inbox", InboxMixin),
}


def add_broker_tables(
    metadata: MetaData, *, schema: str | None = None, prefix: str = "_"
) -> BrokerTables:
    """Add the tables `_outbox`, `_outbox_leases` and `_inbox` to metadata.

    Args:
        metadata: of the models, so that migrations and `create_all` include the tables.
        schema: where the tables are; the default schema of the metadata if not given.
        prefix: of the names of the tables.

    Raises:
        DefinitionError: the metadata has such tables already.
    """
    if find_broker_tables(metadata) is not None:
        raise DefinitionError(
            "The metadata has an outbox already; find_broker_tables(metadata) returns it."
        )
    models = registry(metadata=metadata)
    added: dict[str, Table] = {}
    for kind, (name, mixin) in _MIXINS.items():
        arguments: tuple[Any, ...] = ({"schema": schema},)
        if mixin is OutboxMixin:
            arguments = (
                *OutboxMixin.outbox_indexes(prefix + name),
                {"schema": schema, "sqlite_autoincrement": True},
            )
        body = {"__tablename__": prefix + name, "__table_args__": arguments}
        model: Any = models.mapped(type(f"{kind.title()}Row", (mixin,), body))
        added[kind] = model.__table__
    return BrokerTables(**added)


def find_broker_tables(metadata: MetaData) -> BrokerTables | None:
    """Return the tables of metadata, however they were declared; None if it has none.

    Raises:
        DefinitionError: it has some of them only.
    """
    found = marked_tables(metadata, _MARK)
    if not found:
        return None
    missing = _MIXINS.keys() - found.keys()
    if missing:
        raise DefinitionError(
            f"The metadata has no table for {' and '.join(sorted(missing))}; add models with "
            "OutboxMixin, OutboxLeaseMixin and InboxMixin, or call add_broker_tables(metadata)."
        )
    return BrokerTables(**found)


async def check_broker_tables(engine: AsyncEngine, tables: BrokerTables) -> None:
    """Make sure that a database has the tables of messages, with all that matters.

    Args:
        engine: of the database.
        tables: as they are to be.

    Raises:
        SchemaError: something is missing or different; the message lists all of it, and says what
            to do.
    """
    await require_tables(
        engine,
        (tables.outbox, tables.leases, tables.inbox),
        needed_by="an app with a broker needs it",
        declared_by="OutboxMixin, OutboxLeaseMixin and InboxMixin, or add_broker_tables(metadata)",
    )
