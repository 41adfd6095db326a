"""What a statement names by `touches=`, for what no analysis can see.

Raw SQL, views, functions that read or write, triggers: the execution option `touches` lists the
tables concerned, as names, `Table`s or mapped classes, in addition to those that are seen; an empty
list says that no result depends on the statement. Raw SQL without the option counts as everything
of its database.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Table, inspect
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from .facts import EVERYTHING, TableName

__all__ = ["changes", "is_control", "named_by_option", "only_reads", "table_name"]

CHANGES = re.compile(
    r"\b(insert|update|delete|merge|replace|truncate|into|call|do|lock|copy|create|drop|alter)\b"
)
CONTROL = re.compile(
    r"\s*(begin|start\s+transaction|commit|rollback|savepoint|release|pragma|set|show)\b[^;]*;?\s*",
    re.IGNORECASE,
)
FOR_UPDATE = re.compile(r"\bfor\s+(no\s+key\s+)?update\b")


def table_name(
    database: str,
    table: Any,
    dialect: Dialect,
    translate: Mapping[str | None, str | None] | None = None,
) -> TableName:
    """Name a table of SQLAlchemy's in a database.

    Two spellings of one table give one name: letters are made small, and the usual schema is left
    out.

    Args:
        database: the name that the engine is tracked under.
        table: a `Table` or `TableClause`.
        dialect: of the engine, connected once.
        translate: the execution option `schema_translate_map`.
    """
    schema = getattr(table, "schema", None)
    if translate:
        schema = translate.get(schema, schema)
    name = str(table.name)
    if schema is not None and schema != dialect.default_schema_name:
        name = f"{schema}.{name}"
    return TableName(database, name.lower())


def named_by_option(
    database: str, options: Mapping[str, Any], dialect: Dialect
) -> list[TableName] | None:
    """The tables that the option `touches` of an execution names; None where it has none.

    Raises:
        TypeError: it names something that is no table.
    """
    touches = options.get("touches")
    if touches is None:
        return None
    things = [touches] if isinstance(touches, str) or not _is_many(touches) else list(touches)
    translate = options.get("schema_translate_map")
    return [name for thing in things for name in _names(database, thing, dialect, translate)]


def is_control(statement: str) -> bool:
    """Whether raw SQL is about the transaction or the connection, and about no rows."""
    return CONTROL.fullmatch(statement) is not None and "select" not in statement.lower()


def only_reads(statement: str) -> bool:
    """Whether raw SQL is surely a query."""
    return statement.lstrip(" \t\r\n(")[:6].lower() == "select" and not changes(statement)


def changes(fragment: str) -> bool:
    """Whether raw SQL has a word in it without which it can't change rows."""
    return CHANGES.search(FOR_UPDATE.sub(" ", fragment.lower())) is not None


def _is_many(touches: object) -> bool:
    return isinstance(touches, Iterable) and not isinstance(touches, Table)


def _names(
    database: str,
    thing: object,
    dialect: Dialect,
    translate: Mapping[str | None, str | None] | None,
) -> list[TableName]:
    if isinstance(thing, str):
        schema, _, name = thing.rpartition(".")
        if schema and schema == dialect.default_schema_name:
            return [TableName(database, name.lower())]
        return [TableName(database, thing.lower())]
    if isinstance(thing, Table):
        return [table_name(database, thing, dialect, translate)]
    try:
        mapper = inspect(thing)
    except NoInspectionAvailable:
        mapper = None
    if not isinstance(mapper, Mapper):
        raise TypeError(
            f"touches= names {thing!r}, which is no table; give names, Tables or mapped classes, "
            f"or {EVERYTHING!r} for all tables."
        )
    return [table_name(database, table, dialect, translate) for table in mapper.tables]
