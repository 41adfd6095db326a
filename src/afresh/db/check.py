"""Looks whether a database has the tables of afresh, as they are declared.

Before anything is written to them, so that a forgotten migration shows at the start and in one
message. Only what afresh relies on is compared: names of indexes, comments and further tables are
up to their owners.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import (
    Connection,
    DateTime,
    Dialect,
    Inspector,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    inspect,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import TypeEngine

from afresh.errors import SchemaError

from .tables import LogTables

__all__ = ["check_tables", "require_tables"]

_TEXT_SIZES = {"TINYTEXT": 255, "TEXT": 65_535, "MEDIUMTEXT": 16_777_215}
"""How long the texts of MySQL are, LONGTEXT aside."""
_NEEDED_TEXT = 1_000_000


async def check_tables(engine: AsyncEngine, tables: LogTables) -> None:
    """Make sure that a database has the tables of the logs, with all that matters.

    Args:
        engine: of the database.
        tables: as they are to be.

    Raises:
        SchemaError: something is missing or different; the message lists all of it, and says what
            to do.
    """
    await require_tables(
        engine,
        (tables.operations, tables.events),
        needed_by="the logs of operations and events need it",
        declared_by="OperationLogMixin and EventLogMixin, or add_log_tables(metadata)",
    )


async def require_tables(
    engine: AsyncEngine, tables: Iterable[Table], *, needed_by: str, declared_by: str
) -> None:
    """Make sure that a database has tables, with all that matters.

    Args:
        engine: of the database.
        tables: as they are to be.
        needed_by: for the message: "the logs need it".
        declared_by: for the message: what brings the tables into metadata.

    Raises:
        SchemaError: something is missing or different; the message lists all of it, and says what
            to do.
    """
    async with engine.connect() as connection:
        found = await connection.run_sync(_differences, tables)
    if found:
        listed = "\n".join(f"  - {each}" for each in found)
        raise SchemaError(
            f"The database {engine.url!r} is not as {needed_by}:\n"
            f"{listed}\n"
            "Write a migration (alembic revision --autogenerate finds most of it, with these "
            f"tables in the target_metadata: {declared_by}). Where the tables are missing "
            "altogether, await database.create_tables() creates them."
        )


def _differences(connection: Connection, tables: Iterable[Table]) -> list[str]:
    inspector = inspect(connection)
    found = []
    for table in tables:
        if not inspector.has_table(table.name, schema=table.schema):
            found.append(f"there is no table {table.fullname}")
            continue
        differences = [
            *_differences_of(inspector, table, connection.dialect),
            *_miscounts(connection, table),
        ]
        found += [f"{table.fullname} {difference}" for difference in differences]
    return found


def _differences_of(inspector: Inspector, table: Table, dialect: Dialect) -> Iterator[str]:
    there = {each["name"]: each for each in inspector.get_columns(table.name, schema=table.schema)}
    for column in table.columns:
        found = there.pop(column.name, None)
        if found is None:
            yield f"has no column {column.name}"
            continue
        wanted = column.type.dialect_impl(dialect)
        problem = _type_problem(getattr(wanted, "impl", wanted), found["type"])
        if problem is not None:
            yield f"has a column {column.name} {problem}"
        if column.nullable and not found["nullable"]:
            yield f"has a column {column.name} that must allow NULL, and doesn't"
        needs_default = column.server_default is not None and not column.primary_key
        if needs_default and found.get("default") is None and not found["nullable"]:
            yield f"has a column {column.name} that needs a default, and has none"
    for name, found in there.items():
        is_given = found.get("default") is not None or found.get("identity") is not None
        if not (found["nullable"] or is_given or found.get("computed") is not None):
            yield f"has a column {name} that afresh does not know, and that has no default"
    yield from _missing_keys(inspector, table)


def _type_problem(wanted: TypeEngine[Any], found: TypeEngine[Any]) -> str | None:
    shown = type(found).__name__
    if isinstance(wanted, DateTime):
        if not isinstance(found, DateTime):
            return f"of type {shown} in place of a date and time"
        if getattr(wanted, "fsp", None) and not getattr(found, "fsp", None):
            return "without fractions of seconds: it must be DATETIME(6)"
        if wanted.timezone and not found.timezone and _tells_time_zones(found):
            return "without time zone: it must be TIMESTAMP WITH TIME ZONE"
        return None
    if isinstance(wanted, Text | mysql.LONGTEXT):
        if not isinstance(found, String):
            return f"of type {shown} in place of a text"
        size = _TEXT_SIZES.get(shown, found.length or _NEEDED_TEXT)
        if size < _NEEDED_TEXT and isinstance(wanted, mysql.LONGTEXT):
            return f"of type {shown}, which is too short: it must be LONGTEXT"
        return None
    if isinstance(wanted, String):
        if not isinstance(found, String):
            return f"of type {shown} in place of a string"
        if found.length is not None and found.length < (wanted.length or 0):
            return f"of length {found.length}, which must be {wanted.length}"
        return None
    if isinstance(wanted, mysql.LONGBLOB) and not isinstance(found, mysql.LONGBLOB):
        return f"of type {shown}: it must be LONGBLOB"
    if isinstance(wanted, LargeBinary) and not isinstance(found, LargeBinary):
        return f"of type {shown} in place of bytes"
    if isinstance(wanted, Integer) and not isinstance(found, Integer):
        return f"of type {shown} in place of a whole number"
    return None


def _tells_time_zones(found: TypeEngine[Any]) -> bool:
    return type(found).__module__.startswith("sqlalchemy.dialects.postgresql")


def _missing_keys(inspector: Inspector, table: Table) -> Iterator[str]:
    name, schema = table.name, table.schema
    key = tuple(inspector.get_pk_constraint(name, schema)["constrained_columns"])
    wanted_key = tuple(column.name for column in table.primary_key)
    if key != wanted_key:
        yield f"must have the primary key ({', '.join(wanted_key)}), not ({', '.join(key)})"
    indexes = inspector.get_indexes(name, schema)
    covered = [tuple(each["column_names"]) for each in indexes] + [key]
    unique = [tuple(each["column_names"]) for each in indexes if each["unique"]] + [key]
    unique += [
        tuple(each["column_names"]) for each in inspector.get_unique_constraints(name, schema)
    ]
    for column in table.columns:
        if column.unique and (column.name,) not in unique:
            yield f"must not have the same {column.name} twice: it lacks a unique constraint"
    for index in table.indexes:
        columns = tuple(column.name for column in index.columns)
        if not any(each[: len(columns)] == columns for each in covered):
            yield f"has no index on ({', '.join(columns)})"


def _miscounts(connection: Connection, table: Table) -> Iterator[str]:
    """Yield what is wrong with how the rows of a table are numbered, where they are."""
    counted = next((column.name for column in table.columns if column.identity is not None), None)
    if counted is None:
        return
    if connection.dialect.name == "sqlite":
        statement = text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :name")
        made: str | None = connection.execute(statement, {"name": table.name}).scalar()
        if made is not None and "AUTOINCREMENT" not in made.upper():
            yield (
                "must be made with AUTOINCREMENT (sqlite_autoincrement=True), or else SQLite gives "
                f"the {counted} of a deleted row to another one"
            )
    elif connection.dialect.name == "postgresql":
        name = connection.dialect.identifier_preparer.format_table(table)
        statement = text(
            "SELECT seqrelid::regclass::text, seqcache FROM pg_sequence "
            "WHERE seqrelid = pg_get_serial_sequence(:name, :counted)::regclass"
        )
        found = connection.execute(statement, {"name": name, "counted": counted}).first()
        if found is not None and found.seqcache != 1:
            yield (
                f"has a column {counted} that connections take {found.seqcache} numbers of at once,"
                f" so that the order is lost: ALTER SEQUENCE {found.seqrelid} CACHE 1"
            )
