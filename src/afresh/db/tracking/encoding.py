"""Writes as plain data for a log, and back.

What is not understood counts as everything: a host that is older than the one that wrote an entry
forgets too much rather than too little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from .facts import EVERYTHING, Row, TableName, Value, Write

__all__ = ["MAX_ENCODED_VALUES", "decode_writes", "encode_writes"]

MAX_ENCODED_VALUES: Final = 1000
"""Of a table with more values in its changed rows than this, an entry of a log names no rows."""

MAX_TEXT: Final = 200
# JSON readers take larger numbers for floating ones.
MAX_INTEGER: Final = 2**53


def encode_writes(writes: Iterable[Write]) -> dict[str, Any]:
    """Return writes as what JSON has, for `decode_writes`.

    By database and table, the changed rows, each with its values by column; a table that is changed
    as a whole has None. Texts and numbers that are too long are left out, and so may be any.

    Args:
        writes: one for each table.

    Example:
        ```python
        encode_writes(recorder.writes)  # {"": {"orders": [{"id": 7, "user_id": [1, 2]}]}}
        ```
    """
    databases: dict[str, Any] = {}
    for write in writes:
        rows = None if write.rows is None else _encode_rows(write.rows)
        databases.setdefault(write.table.database, {})[write.table.name] = rows
    return databases


def _encode_rows(rows: tuple[Row, ...]) -> list[dict[str, Any]] | None:
    encoded = []
    left = MAX_ENCODED_VALUES
    for row in rows:
        known = {
            column: list(values) for column, values in row.items() if all(map(_is_short, values))
        }
        left -= sum(map(len, known.values()))
        if left < 0 or not known:
            return None
        encoded.append(
            {column: each[0] if len(each) == 1 else each for column, each in known.items()}
        )
    return encoded


def _is_short(value: Value) -> bool:
    if isinstance(value, str):
        # A half of a surrogate pair has no place in UTF-8.
        return len(value) <= MAX_TEXT and not any("\ud800" <= each <= "\udfff" for each in value)
    return value is None or -MAX_INTEGER <= value <= MAX_INTEGER


def decode_writes(data: object) -> tuple[Write, ...]:
    """Return the writes that `encode_writes` made data of.

    Args:
        data: from a log. What has another form counts as a change of everything that it is about:
            of the table, of the database, or of all databases.
    """
    if not isinstance(data, Mapping):
        return (Write(TableName(EVERYTHING, EVERYTHING)),)
    writes = []
    for database, tables in data.items():
        if not isinstance(tables, Mapping):
            writes.append(Write(TableName(database, EVERYTHING)))
            continue
        for name, rows in tables.items():
            writes.append(Write(TableName(database, name), _decode_rows(rows)))
    return tuple(writes)


def _decode_rows(rows: object) -> tuple[Row, ...] | None:
    if not isinstance(rows, list):
        return None
    decoded = []
    for row in rows:
        if not isinstance(row, Mapping):
            return None
        known = {column: _decode_values(values) for column, values in row.items()}
        decoded.append({column: values for column, values in known.items() if values is not None})
    return tuple(decoded)


def _decode_values(values: object) -> frozenset[Value] | None:
    """None where they are not understood."""
    several = values if isinstance(values, list) else [values]
    if all(type(each) in {int, str, type(None)} for each in several):
        return frozenset(several)
    return None
