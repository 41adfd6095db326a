"""The statements that the relay runs on the outbox, and those that look at it.

Whoever publishes has a lease on the part that a message is in: what became of the message is noted
under that condition, so that a host which has lost its lease changes nothing.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Executable, and_, bindparam, delete, exists, func, or_, select, text, update
from sqlalchemy.sql import Delete, Select, Update

from afresh.db.logs.moments import moment

from .tables import BrokerTables, OutboxState

__all__ = ["DeskQueries", "RelayQueries"]

_JUST_NOW = 0.25
"""Seconds; what has become due between two queries is looked for at once."""

COUNTED = 10_000
"""A longer outbox is not counted to its end."""


class RelayQueries:
    """The statements of a relay.

    Args:
        tables: the outbox and its leases.
        owner: of the leases.
        strict: whether messages wait for those that were written before, and are not committed.
    """

    def __init__(self, tables: BrokerTables, owner: str, *, strict: bool) -> None:
        outbox = tables.outbox
        columns = outbox.c
        earlier = outbox.alias("earlier")
        # Not a question of time, which passes while the query runs: what failed goes alone, and
        # what this round has left behind goes first.
        blocks = or_(
            and_(
                earlier.c.state == OutboxState.NEW,
                earlier.c.not_before.is_(None),
                or_(earlier.c.next_attempt_at.is_not(None), earlier.c.id <= bindparam("after")),
            ),
            and_(
                earlier.c.state == OutboxState.DEAD,
                earlier.c.destination.in_(bindparam("halting", expanding=True)),
            ),
        )
        is_blocked = exists().where(
            earlier.c.key == columns.key,
            earlier.c.destination == columns.destination,
            earlier.c.id < columns.id,
            blocks,
        )
        due: Select[Any] = (
            select(
                columns.id,
                columns.attempts,
                columns.message_id,
                columns.destination,
                columns.key,
                columns.type,
                columns.content_type,
                columns.headers,
                columns.body,
            )
            .where(
                columns.state == OutboxState.NEW,
                columns.id > bindparam("after"),
                columns.bucket.in_(bindparam("buckets", expanding=True)),
                or_(columns.not_before.is_(None), columns.not_before <= moment()),
                or_(columns.next_attempt_at.is_(None), columns.next_attempt_at <= moment()),
                or_(columns.key.is_(None), columns.not_before.is_not(None), ~is_blocked),
            )
            .order_by(columns.id)
            .limit(bindparam("size"))
        )
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
        """Messages to be published now: ``after`` an id, of ``buckets``, ``size`` of them, and
        those behind dead ones to ``halting`` destinations not."""
        leases = tables.leases.c
        is_ours = exists().where(leases.bucket == columns.bucket, leases.owner == owner)
        ours = (columns.state == OutboxState.NEW, is_ours)
        self.mark: Update = (
            update(outbox)
            .where(columns.id.in_(bindparam("ids", expanding=True)), *ours)
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
        due_at = func.coalesce(columns.next_attempt_at, columns.not_before)
        self.next: Executable = select(func.min(due_at)).where(
            columns.state == OutboxState.NEW,
            columns.bucket.in_(bindparam("buckets", expanding=True)),
            due_at > moment(-_JUST_NOW),
        )
        """When the next one of ``buckets`` is due of those that have to wait; those that were due
        before and were not fetched wait for something else."""


class DeskQueries:
    """The statements of who looks at an outbox, and decides about dead messages.

    Args:
        tables: the outbox.
    """

    def __init__(self, tables: BrokerTables) -> None:
        outbox = tables.outbox
        columns = outbox.c
        is_dead = columns.state == OutboxState.DEAD
        some = (
            select(columns.created_at)
            .where(columns.state == OutboxState.NEW)
            .order_by(columns.id)
            .limit(COUNTED)
            .subquery()
        )
        self.pending: Executable = select(func.count(), func.min(some.c.created_at)).select_from(
            some
        )
        """How many are to be published, at least, and when the oldest of them was written."""
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
