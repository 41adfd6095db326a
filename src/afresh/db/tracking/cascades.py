"""Which tables the database changes by itself when rows of another one change."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from sqlalchemy import Table

__all__ = ["changed_by_delete", "changed_by_update"]

HARMLESS = frozenset({"", "RESTRICT", "NO ACTION"})


def changed_by_delete(table: Table) -> frozenset[Table]:
    """The tables that deleting rows of a table may change, through `ON DELETE`."""
    return _changed(table, None)


def changed_by_update(table: Table, columns: AbstractSet[str]) -> frozenset[Table]:
    """The tables that changing some columns of a table may change, through `ON UPDATE`.

    Args:
        table: whose rows change.
        columns: names of those that get new values.
    """
    return _changed(table, frozenset(columns))


def _changed(table: Table, columns: frozenset[str] | None) -> frozenset[Table]:
    """Those behind deleted rows where columns is None, behind changed columns otherwise."""
    found: set[Table] = set()
    seen: set[tuple[Table, frozenset[str] | None]] = set()
    waiting = [(table, columns)]
    while waiting:
        event = waiting.pop()
        if event in seen:
            continue
        seen.add(event)
        source, changed = event
        for other in source.metadata.tables.values():
            for key in other.foreign_key_constraints:
                # Equal, not the same: the ORM puts copies with annotations into statements.
                if key.referred_table != source:
                    continue
                if changed is not None and changed.isdisjoint(
                    element.column.name for element in key.elements
                ):
                    continue
                action = ((key.ondelete if changed is None else key.onupdate) or "").strip()
                if action.upper() in HARMLESS:
                    continue
                found.add(other)
                deletes = changed is None and action.upper() == "CASCADE"
                own = frozenset(column.name for column in key.columns)
                waiting.append((other, None if deletes else own))
    return frozenset(found)
