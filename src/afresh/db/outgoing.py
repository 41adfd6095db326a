"""Writes the events of an operation, in its transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Table, insert, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from afresh.errors import EventConflictError
from afresh.operations.codec import LogCodec
from afresh.operations.events import OperationEvent

from .tables import EventState

__all__ = ["MARKER", "insert_if_new", "store_events"]

MARKER = "~op-"
"""How the names of rows begin that stand for operations which are not in the log of those."""

_OPTIONS = {"touches": ()}
_ATTEMPTS = 3


async def store_events(
    connection: AsyncConnection, table: Table, events: Iterable[OperationEvent], codec: LogCodec
) -> None:
    """Write events, in an order that two operations with the same ones agree on.

    Raises:
        EventConflictError: one of them has the name of another that is there already, and was to
            fail then, or to change one that is handled already.
        DefinitionError: an event can't be written.
    """
    plain: list[dict[str, Any]] = []
    for event in sorted(events, key=lambda each: each.uuid):
        values = {
            "uuid": event.uuid,
            "state": EventState.NEW,
            "logged_at": event.logged_at,
            "due_at": event.due_at,
            "value": codec.encode(event.command),
        }
        if event.on_conflict == "fail":
            plain.append(values)
        elif event.on_conflict == "skip":
            await insert_if_new(connection, table, values)
        else:
            await _put(connection, table, values)
    if plain:
        try:
            await connection.execute(insert(table), plain, execution_options=_OPTIONS)
        except IntegrityError as error:
            names = ", ".join(each["uuid"] for each in plain)
            raise EventConflictError(
                f"An event of one of these names is there already: {names}. Leave uuid= out, or "
                'say what becomes of the new one: on_conflict="skip" or "update".'
            ) from error


async def insert_if_new(connection: AsyncConnection, table: Table, values: dict[str, Any]) -> bool:
    """Insert a row unless there is one with its key; one that is being inserted is waited for.

    Args:
        connection: with a transaction.
        table: where.
        values: of the row.

    Returns:
        Whether it was inserted.
    """
    statement: Any
    match connection.dialect.name:
        case "postgresql":
            statement = postgresql.insert(table).on_conflict_do_nothing()
        case "sqlite":
            statement = sqlite.insert(table).on_conflict_do_nothing()
        case _:
            statement = mysql.insert(table).prefix_with("IGNORE")
    result = await connection.execute(statement, values, execution_options=_OPTIONS)
    return bool(result.rowcount)


async def _put(connection: AsyncConnection, table: Table, values: dict[str, Any]) -> None:
    change = (
        update(table)
        .where(table.c.uuid == values["uuid"], table.c.state == EventState.NEW)
        .values(
            logged_at=values["logged_at"],
            due_at=values["due_at"],
            value=values["value"],
            attempts=0,
            last_error=None,
            version=table.c.version + 1,
        )
    )
    for _ in range(_ATTEMPTS):
        result = await connection.execute(change, execution_options=_OPTIONS)
        if result.rowcount or await insert_if_new(connection, table, values):
            return
    raise EventConflictError(
        f"The event {values['uuid']} was handled already, or is being handled, and can't be "
        "changed any more. Give the new one another uuid."
    )
