"""Values as the database compares them.

A column has a converter only where two values are surely the same to the database when they
convert to the same, and different when they don't: integers, exact text, UUIDs, dates. Everything
that rounds, pads, folds or casts has none, and neither has a value of an unexpected type.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import Column, Table, types
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from .facts import Value

__all__ = ["UNKNOWN", "Converter", "Unknown", "converter", "key_columns"]


class Unknown:
    """The type of `UNKNOWN`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()
"""What a converter gives for a value about which there is a doubt."""

Converter: TypeAlias = Callable[[Any], "Value | Unknown"]

# Their default collations compare text byte by byte; MariaDB's and MySQL's fold case and spaces.
EXACT_TEXT = frozenset({"sqlite", "postgresql", "cockroachdb"})
EXACT_COLLATIONS = frozenset({"binary", "c", "posix", "ucs_basic", "c.utf8", "c.utf-8"})
# Not CHAR, which pads with blanks, nor CITEXT, which is a subclass of TEXT that folds.
TEXT_NAMES = frozenset(
    {"string", "text", "unicode", "unicode_text", "VARCHAR", "TEXT", "NVARCHAR", "enum", "ENUM"}
)


def converter(column: Column[Any], bound: TypeEngine[Any], dialect: Dialect) -> Converter | None:
    """Return what turns values bound with a type into what a column compares them as.

    Args:
        column: what the value is compared with, or stored in.
        bound: the type that the value is bound with, mostly the column's.
        dialect: of the database.

    Returns:
        None where values of this column can't be told apart surely.
    """
    compare = _comparison(column.type, dialect)
    if compare is None or bound._has_bind_expression:
        return None
    process = bound.dialect_impl(dialect).bind_processor(dialect)
    if process is None:
        return compare
    sent = process

    def convert(value: Any) -> Value | Unknown:
        try:
            value = sent(value)
        except Exception:  # the statement itself will fail with it
            return UNKNOWN
        return compare(value)

    return convert


def key_columns(table: Table) -> frozenset[str]:
    """The names of the columns that are keys or indexed: only these are worth pinning."""
    names = {column.name for column in table.primary_key}
    names.update(key.parent.name for key in table.foreign_keys)
    names.update(column.name for column in table.columns if column.unique or column.index)
    for index in table.indexes:
        names.update(column.name for column in index.columns)
    for constraint in table.constraints:
        # Unique ones; of a CHECK, to pin a column is useful as well.
        names.update(column.name for column in getattr(constraint, "columns", ()))
    return frozenset(names)


def _comparison(type_: TypeEngine[Any], dialect: Dialect) -> Converter | None:
    if type_._has_bind_expression:
        return None
    declared = type_._variant_mapping.get(dialect.name, type_)
    while isinstance(declared, types.TypeDecorator):
        declared = declared.load_dialect_impl(dialect)
    stored = declared.dialect_impl(dialect)
    if isinstance(stored, types.Integer | types.Boolean):
        return _integer
    if isinstance(stored, types.Uuid):
        return _uuid
    if isinstance(stored, types.Date):
        return _date
    if isinstance(stored, types.String):
        # A dialect may stand in for CHAR with a type of its own that does not say so.
        if declared.__visit_name__ not in TEXT_NAMES:
            return None
        return _text_comparison(stored, dialect)
    return None


def _text_comparison(stored: types.String, dialect: Dialect) -> Converter | None:
    if stored.__visit_name__ not in TEXT_NAMES or dialect.name not in EXACT_TEXT:
        return None
    if stored.collation is not None and stored.collation.lower() not in EXACT_COLLATIONS:
        return None
    length = stored.length
    if length is None or isinstance(stored, types.Enum):
        return _text

    def short_text(value: object) -> Value | Unknown:
        # Longer ones are cut where they end in blanks, or are refused.
        if isinstance(value, str) and len(value) > length:
            return UNKNOWN
        return _text(value)

    return short_text


def _integer(value: object) -> Value | Unknown:
    if value is None:
        return None
    return int(value) if isinstance(value, int) else UNKNOWN


def _text(value: object) -> Value | Unknown:
    if value is None:
        return None
    return str(value) if isinstance(value, str) else UNKNOWN


def _uuid(value: object) -> Value | Unknown:
    if value is None:
        return None
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, str):
        try:
            return UUID(value).hex
        except ValueError:
            return UNKNOWN
    return UNKNOWN


def _date(value: object) -> Value | Unknown:
    if value is None:
        return None
    if type(value) is date:
        return value.isoformat()
    # SQLite's own form; anything longer has a time in it.
    return str(value) if isinstance(value, str) and len(value) == 10 else UNKNOWN
