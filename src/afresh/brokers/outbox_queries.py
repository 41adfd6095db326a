"""The statements that the relay runs on the outbox, and those that look at it.

Whoever publishes has a lease on the part that a message is in: what became of the message is noted
under that condition, so that a host which has lost its lease changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import Delete, Select, Update

from afresh.db.engines import Dialect
from afresh.db.logs.moments import moment

from .tables import BrokerTables, OutboxState, is_in

__all__ = ["DeskQueries", "RelayQueries"]

_JUST_NOW = 0.25
"""Seconds; what has become due between two queries is looked for at once."""

COUNTED = 10_000
"""A longer outbox is not counted to its end."""

_LATELY = 0.1


class RelayQueries:
    """The statements of a relay.

    Args:
        tables: the outbox and its leases.
        owner: of the leases.
        dialect: of the database.
        strict: whether messages wait for those that were written before, and are not committed.
        halting: destinations where a dead message holds up the later ones of its key.
    """

    def __init__(
        self,
        tables: BrokerTables,
        owner: str,
        dialect: Dialect,
        *,
        strict: bool = False,
        halting: Sequence[str] = (),
    ) -> None:
        outbox = tables.outbox
        columns = outbox.c
        earlier = outbox.alias("earlier").c
        is_behind = (
            earlier.key == columns.key,
            earlier.destination == columns.destination,
            earlier.id < columns.id,
        )
        # Whenever that one is due: it goes alone, and those behind it when it is done with.
        is_held_up = exists().where(
            *is_behind,
            is_in(earlier.state, OutboxState.NEW),
            earlier.next_attempt_at.is_not(None),
            earlier.not_before.is_(None),
        )
        # Committed late, and read past: found once for all rows, as it is about none of them.
        unseen = select(earlier.destination, earlier.key).where(
            is_in(earlier.state, OutboxState.NEW),
            earlier.id <= bindparam("after", type_=BigInteger),
            earlier.key.is_not(None),
            earlier.not_before.is_(None),
            _not_among(earlier.id, "held", dialect),
        )
        was_passed = tuple_(columns.destination, columns.key).in_(unseen)
        is_ordered = and_(columns.key.is_not(None), columns.not_before.is_(None))
        due: Select[Any] = (
            select(
                columns.id,
                columns.bucket,
                columns.attempts,
                columns.next_attempt_at.is_not(None).label("was_held_up"),
                is_ordered.label("is_ordered"),
                columns.message_id,
                columns.destination,
                columns.key,
                columns.type,
                columns.content_type,
                columns.headers,
                columns.body,
            )
            .where(
                is_in(columns.state, OutboxState.NEW),
                columns.id > bindparam("after", type_=BigInteger),
                _among(columns.bucket, "buckets", dialect),
                or_(columns.next_attempt_at.is_(None), columns.next_attempt_at <= moment()),
                or_(~is_ordered, and_(~is_held_up, ~was_passed)),
            )
            .order_by(columns.id)
            .limit(bindparam("size"))
        )
        if halting:
            is_halted = exists().where(
                *is_behind,
                is_in(earlier.state, OutboxState.DEAD),
                earlier.destination.in_(halting),
            )
            due = due.where(or_(~is_ordered, ~is_halted))
        if strict:
            # Older than every transaction that is still open, however the counter has wrapped.
            name = outbox.fullname
            due = due.where(
                text(
                    f"age({name}.xmin) > age((pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
                    " & 4294967295)::text::xid)"
                )
            )
        self.due: Select[Any] = due
        """Messages to be published now: ``after`` an id, of ``buckets``, ``size`` of them. Those
        before that id are ``held``, or were not seen; then what is behind them has to wait."""
        leases = tables.leases.c
        is_ours = exists().where(leases.bucket == columns.bucket, leases.owner == owner)
        ours = (is_in(columns.state, OutboxState.NEW), is_ours)
        self.mark: Update = (
            update(outbox)
            .where(_among(columns.id, "ids", dialect), *ours)
            .values(state=OutboxState.PUBLISHED, published_at=moment())
        )
        """Those with ``ids`` are published."""
        self.postpone: Update = (
            update(outbox)
            .where(columns.id == bindparam("one"), *ours)
            .values(
                attempts=columns.attempts + 1,
                next_attempt_at=moment(bindparam("delay")),
                last_error=bindparam("error"),
            )
        )
        """``one`` is tried again after a ``delay``, for an ``error``."""
        self.bury: Update = (
            update(outbox)
            .where(columns.id == bindparam("one"), *ours)
            .values(
                state=OutboxState.DEAD,
                attempts=columns.attempts + 1,
                last_error=bindparam("error"),
            )
        )
        """``one`` is dead, for an ``error``."""
        self.next: Executable = select(func.min(columns.next_attempt_at)).where(
            is_in(columns.state, OutboxState.NEW),
            columns.next_attempt_at > moment(-_LATELY),
            _among(columns.bucket, "buckets", dialect),
        )
        """When the next one of ``buckets`` is due of those that have to wait. Those that are due
        since long are not told: something else holds them up."""


def _among(column: Any, name: str, dialect: Dialect) -> ColumnElement[bool]:
    """Whether a column has one of the values of a parameter.

    Where there are arrays, that is one statement for any number of values.
    """
    if dialect == "postgresql":
        is_one: ColumnElement[bool] = column == func.any(bindparam(name, type_=ARRAY(BigInteger)))
        return is_one
    found: ColumnElement[bool] = column.in_(bindparam(name, expanding=True))
    return found


def _not_among(column: Any, name: str, dialect: Dialect) -> ColumnElement[bool]:
    if dialect == "postgresql":
        is_none: ColumnElement[bool] = column != func.all(bindparam(name, type_=ARRAY(BigInteger)))
        return is_none
    found: ColumnElement[bool] = column.not_in(bindparam(name, expanding=True))
    return found


class DeskQueries:
    """The statements of who looks at an outbox, and decides about dead messages.

    Args:
        tables: the outbox.
    """

    def __init__(self, tables: BrokerTables) -> None:
        outbox = tables.outbox
        columns = outbox.c
        is_dead = is_in(columns.state, OutboxState.DEAD)
        some = (
            select(func.coalesce(columns.not_before, columns.created_at).label("since"))
            .where(is_in(columns.state, OutboxState.NEW))
            .order_by(columns.id)
            .limit(COUNTED)
            .subquery()
        )
        self.pending: Executable = select(func.count(), func.min(some.c.since)).select_from(some)
        """How many are to be published, at least, and since when the first of them may be."""
        self.dead: Executable = select(func.count()).select_from(outbox).where(is_dead)
        """How many are dead."""
        self.list_dead: Executable = (
            select(
                columns.id,
                columns.message_id,
                columns.destination,
                columns.key,
                columns.type,
                columns.attempts,
                columns.last_error,
                columns.created_at,
            )
            .where(is_dead, columns.id > bindparam("after"))
            .order_by(columns.id)
            .limit(bindparam("size"))
        )
        """Dead ones ``after`` an id, ``size`` of them."""
        self.requeue: Update = (
            update(outbox)
            .where(is_dead)
            .values(state=OutboxState.NEW, attempts=0, next_attempt_at=moment())
        )
        """All dead ones are to be published."""
        self.drop: Delete = delete(outbox).where(is_dead)
        """All dead ones go."""
        leases = tables.leases.c
        parts = func.sum(case((leases.bucket >= 0, 1), else_=0))
        self.owners: Executable = (
            select(leases.owner, parts)
            .where(leases.owner.is_not(None), leases.expires_at > moment())
            .group_by(leases.owner)
            .order_by(leases.owner)
        )
        """The hosts that publish, and how many parts each has."""
