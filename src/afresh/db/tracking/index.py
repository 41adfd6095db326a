"""Which of many reads a write touches, without looking at all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from .facts import EVERYTHING, Read, Row, TableName, Value, Write, row_matches

__all__ = ["ReadIndex"]

T = TypeVar("T")


class _Entry(Generic[T]):
    """A read, and whom it belongs to."""

    __slots__ = ("items", "read")

    def __init__(self, read: Read) -> None:
        self.read = read
        self.items: set[T] = set()


class _Shape(Generic[T]):
    """The reads of one table that pin the same columns, by each of those columns' values."""

    __slots__ = ("by_value", "entries")

    def __init__(self, columns: Iterable[str]) -> None:
        self.entries: dict[Read, _Entry[T]] = {}
        self.by_value: dict[str, dict[Value, set[_Entry[T]]]] = {name: {} for name in columns}

    def add(self, read: Read, item: T) -> None:
        entry = self.entries.get(read)
        if entry is None:
            entry = self.entries[read] = _Entry(read)
            for column, values in read.pins.items():
                by_value = self.by_value[column]
                for value in values:
                    by_value.setdefault(value, set()).add(entry)
        entry.items.add(item)

    def discard(self, read: Read, item: T) -> None:
        entry = self.entries.get(read)
        if entry is None:
            return
        entry.items.discard(item)
        if entry.items:
            return
        del self.entries[read]
        for column, values in read.pins.items():
            by_value = self.by_value[column]
            for value in values:
                same = by_value[value]
                same.remove(entry)
                if not same:
                    del by_value[value]

    def collect(self, found: set[T]) -> None:
        for entry in self.entries.values():
            found |= entry.items

    def collect_row(self, row: Row, found: set[T]) -> None:
        fewest: list[set[_Entry[T]]] | None = None
        count = 0
        for column, by_value in self.by_value.items():
            known = row.get(column)
            if known is None:
                continue
            sets = [by_value[value] for value in known if value in by_value]
            size = sum(map(len, sets))
            if fewest is None or size < count:
                fewest, count = sets, size
        if fewest is None:
            self.collect(found)
            return
        for entries in fewest:
            for entry in entries:
                if row_matches(row, entry.read.pins):
                    found |= entry.items


class ReadIndex(Generic[T]):
    """Reads with something attached to each, found by the writes that touch them.

    Adding and discarding costs as much as the read has values pinned; a write costs its rows times
    the sets of columns that reads of its table pin, and what it finds.

    Example:
        ```python
        index = ReadIndex[str]()
        index.add(read, "the page of user 1")
        stale = index.touched(writes)
        ```
    """

    __slots__ = ("_databases",)

    def __init__(self) -> None:
        self._databases: dict[str, dict[str, dict[frozenset[str], _Shape[T]]]] = {}

    def add(self, read: Read, item: T) -> None:
        """Attach an item to a read; doing so again changes nothing.

        Args:
            read: what was read.
            item: whatever depends on it; must be hashable.
        """
        tables = self._databases.setdefault(read.table.database, {})
        shapes = tables.setdefault(read.table.name, {})
        columns = frozenset(read.pins)
        shape = shapes.get(columns)
        if shape is None:
            shape = shapes[columns] = _Shape(columns)
        shape.add(read, item)

    def discard(self, read: Read, item: T) -> None:
        """Detach an item from a read, if it is attached.

        Args:
            read: as it was added.
            item: as it was added.
        """
        database, name = read.table
        tables = self._databases.get(database, {})
        shapes = tables.get(name, {})
        columns = frozenset(read.pins)
        shape = shapes.get(columns)
        if shape is None:
            return
        shape.discard(read, item)
        if shape.entries:
            return
        del shapes[columns]
        if not shapes:
            del tables[name]
        if not tables:
            del self._databases[database]

    def touched(self, writes: Iterable[Write]) -> set[T]:
        """Return the items of all reads that one of the writes touches."""
        found: set[T] = set()
        for write in writes:
            if write.table.database == EVERYTHING:
                for tables in self._databases.values():
                    self._collect(tables, write.table, write.rows, found)
                continue
            named = self._databases.get(write.table.database)
            if named is not None:
                self._collect(named, write.table, write.rows, found)
        return found

    def __len__(self) -> int:
        return sum(
            len(shape.entries)
            for tables in self._databases.values()
            for shapes in tables.values()
            for shape in shapes.values()
        )

    @staticmethod
    def _collect(
        tables: dict[str, dict[frozenset[str], _Shape[T]]],
        table: TableName,
        rows: tuple[Row, ...] | None,
        found: set[T],
    ) -> None:
        if table.name == EVERYTHING:
            for shapes in tables.values():
                for shape in shapes.values():
                    shape.collect(found)
            return
        for shape in tables.get(EVERYTHING, {}).values():
            shape.collect(found)
        for shape in tables.get(table.name, {}).values():
            if rows is None:
                shape.collect(found)
            else:
                for row in rows:
                    shape.collect_row(row, found)
