"""Types of columns that mean the same on every database, and tables that are known by a mark.

The tables of the logs, the outbox and the inbox are declared with these, by afresh or by models of
the user's; either way they are found by a mark on one of their columns.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData, String, Table, Text, text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

from afresh.errors import DefinitionError

__all__ = [
    "BIG",
    "LONG",
    "ZERO",
    "UtcTimestamp",
    "ascii_text",
    "exact_text",
    "marked_tables",
    "table_name_of",
]


class UtcTimestamp(TypeDecorator[datetime]):
    """A moment, always with its time zone, which is UTC; microseconds on every database."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = DateTime
    cache_ok: bool | None = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(
                f"{value!r} has no time zone; pass one that has, such as datetime.now(UTC)."
            )
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


BIG = BigInteger().with_variant(Integer, "sqlite")
"""A number of 64 bits; SQLite counts up only what is called INTEGER."""

LONG = Text().with_variant(
    mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
"""Text of any length; MySQL's own TEXT ends at 64 KiB."""

ZERO = text("0")


def ascii_text(length: int) -> String:
    """Text of ids that afresh makes, compared as it is written."""
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return String(length).with_variant(exact, "mysql", "mariadb")


def exact_text(length: int) -> String:
    """Text of ids that users may make, compared as it is written."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(exact, "mysql", "mariadb")


def table_name_of(model: type) -> str:
    """Return what the table of a model is called."""
    name: str = getattr(model, "__tablename__", model.__name__)
    return name


def marked_tables(metadata: MetaData, mark: str) -> dict[str, Table]:
    """Return the tables that have a column with a mark, by what the mark says they are.

    The mark is on a column, because `__table_args__` of a model replace those of a mixin.

    Args:
        metadata: of the models.
        mark: key of `Column.info`.

    Raises:
        DefinitionError: two tables are marked as the same.
    """
    found: dict[str, Table] = {}
    for table in metadata.tables.values():
        for column in table.columns:
            kind = column.info.get(mark)
            if kind is None:
                continue
            other = found.setdefault(kind, table)
            if other is not table:
                raise DefinitionError(
                    f"{other.name} and {table.name} are both tables for {kind}; a database has "
                    "one. Put the other one into metadata of its own."
                )
    return found
