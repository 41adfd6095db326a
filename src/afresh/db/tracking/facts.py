"""What was read and what was written, as plain values that can go into a log.

They know nothing of SQL. The one rule: what is left out counts as "any value", so that whoever
makes them leaves out whatever is in doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

__all__ = [
    "EVERYTHING",
    "MAX_PIN_VALUES",
    "MAX_WRITE_ROWS",
    "Read",
    "Row",
    "TableName",
    "Value",
    "Write",
]

Value: TypeAlias = int | str | None
"""A value as the database compares it; two are equal only where it would find them equal, and None
is NULL."""

Row: TypeAlias = Mapping[str, frozenset[Value]]
"""The values that a changed row had or has, old and new, by column; a column that is not there may
have had any."""

EVERYTHING = "*"
"""The name of a table that stands for all tables of its database; as the database of a write, it
stands for all databases."""

MAX_PIN_VALUES = 50
"""A statement that pins a column to more values than this counts as reading its whole range."""

MAX_WRITE_ROWS = 2000
"""A statement, or a transaction, that changes more rows of a table than this counts as changing
the whole table."""


class TableName(NamedTuple):
    """The name of a table, with the database, or the shard, that it lives in."""

    database: str
    """The name that the database was given with `track`."""
    name: str
    """In small letters and with its schema, where that is not the usual one; or `EVERYTHING`."""


class Read:
    """The rows of one table that something was read from.

    Args:
        table: whose rows; with the name `EVERYTHING`, those of every table of the database.
        pins: by column, the values that a row must have to have been read; rows with any value in
            the columns left out were read. Those without a single value match no row.

    Example:
        ```python
        Read(TableName("default", "orders"), {"user_id": frozenset({1})})
        ```
    """

    __slots__ = ("_hash", "pins", "table")

    table: TableName
    pins: Row

    def __init__(self, table: TableName, pins: Row | None = None) -> None:
        self.table = table
        self.pins = pins if pins is not None else {}
        self._hash = hash((table, frozenset(self.pins.items())))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Read):
            return NotImplemented
        return self._hash == other._hash and self.table == other.table and self.pins == other.pins

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Read({self.table!r}, {dict(self.pins)!r})"


class Write:
    """Rows of one table that were changed, added or deleted.

    Args:
        table: whose rows; with the name `EVERYTHING`, those of every table of the database.
        rows: the changed ones; None is any of them.

    Example:
        ```python
        row = {"id": frozenset({7}), "user_id": frozenset({1, 2})}
        Write(TableName("default", "orders"), (row,))
        ```
    """

    __slots__ = ("rows", "table")

    table: TableName
    rows: tuple[Row, ...] | None

    def __init__(self, table: TableName, rows: tuple[Row, ...] | None = None) -> None:
        self.table = table
        self.rows = rows

    def touches(self, read: Read) -> bool:
        """Whether what was read may be different now.

        `ReadIndex` answers the same for many reads at once.
        """
        if self.table.database not in (read.table.database, EVERYTHING):
            return False
        if EVERYTHING in (self.table.name, read.table.name):
            return True
        if self.table.name != read.table.name:
            return False
        return self.rows is None or any(row_matches(row, read.pins) for row in self.rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Write):
            return NotImplemented
        return self.table == other.table and self.rows == other.rows

    def __hash__(self) -> int:
        return hash(self.table)

    def __repr__(self) -> str:
        return f"Write({self.table!r}, {self.rows!r})"


def row_matches(row: Row, pins: Row) -> bool:
    """Whether every pinned column may have one of its values in the row."""
    for column, values in pins.items():
        known = row.get(column)
        if known is not None and known.isdisjoint(values):
            return False
    return True
