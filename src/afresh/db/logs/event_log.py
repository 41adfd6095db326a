"""The log of events in SQL: taking events, giving them back, and what becomes of them.

Every statement about an event that is being processed names the token of its lease, so that a host
that was taken for dead changes nothing any more. Who processes events, and when, is left to the
reader.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Executable,
    Float,
    Integer,
    and_,
    bindparam,
    delete,
    func,
    insert,
    null,
    or_,
    select,
    update,
)

from afresh.errors import LeaseLostError

from ..tables import EventState
from .moments import moment

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from ..shards import Shard
    from ..tables import LogTables

__all__ = ["ClaimedEvent", "DeadEvent", "EventGuard", "EventLog", "Outlook"]

_OPTIONS = {"touches": ()}
"""Nothing that is cached is read from the log."""
_LONGEST_UUID = 200
_LONGEST_ERROR = 4000


class ClaimedEvent(msgspec.Struct, frozen=True):
    """An event that this host has to itself for a while."""

    uuid: str
    value: str
    """The command, encoded."""
    chain: str | None
    """The handler that it is for; None before that is known."""
    attempts: int
    """How often it was begun, this time included."""
    version: int
    """Changes when another operation replaces the event."""
    due_at: datetime
    token: str
    """Of the lease."""


class DeadEvent(msgspec.Struct, frozen=True):
    """An event whose last attempt has failed."""

    uuid: str
    value: str
    """The command, encoded."""
    chain: str | None
    """The handler that failed; None where it did not come to that."""
    attempts: int
    error: str | None
    """Why the last attempt failed."""
    dead_at: datetime


class Outlook(msgspec.Struct, frozen=True):
    """What there is to be done, by the clock of the database."""

    pause: float | None
    """Seconds until the next event is due that no host has taken; None if there is none."""
    lateness: float
    """For how many seconds the oldest event that is not processed has been due."""


class EventGuard:
    """Marks an event as processed in the transaction of its own handler.

    Args:
        log: where the event is.
        event: the event.
    """

    def __init__(self, log: EventLog, event: ClaimedEvent) -> None:
        self.database: str = log.shard.database_name
        """Whose transaction it is for."""
        self.shard: str = log.shard.name
        """Whose transaction it is for."""
        self.is_used: bool = False
        """Whether the transaction was committed."""
        self._log = log
        self._event = event

    async def __call__(self, connection: AsyncConnection) -> None:
        """Mark it.

        Raises:
            LeaseLostError: the event is no longer this host's.
        """
        if not await self._log.mark_processed(self._event, connection):
            raise LeaseLostError(
                f"The event {self._event.uuid} was taken over by another host, replaced or "
                "dropped while it was processed here, so what its handler did is undone. If "
                "handlers take long, raise EventLogOptions.lease."
            )


class EventLog:
    """The log of events of one shard.

    Args:
        shard: where the log is.
        tables: the tables of the log.
        host_id: of this host.
    """

    def __init__(self, shard: Shard, tables: LogTables, host_id: str) -> None:
        self.shard: Shard = shard
        self._events = events = tables.events
        columns = events.c
        lease = {
            "lease_owner": host_id,
            "lease_token": bindparam("token"),
            "lease_until": moment(bindparam("lease", type_=Float())),
            "attempts": columns.attempts + 1,
        }
        self._found = [
            columns.uuid,
            columns.value,
            columns.chain,
            columns.attempts,
            columns.version,
            columns.due_at,
        ]
        free = (
            select(columns.uuid)
            .where(
                columns.state == EventState.NEW,
                columns.due_at <= moment(),
                or_(columns.lease_until.is_(None), columns.lease_until < moment()),
            )
            .order_by(columns.due_at)
            .limit(bindparam("most"))
            .with_for_update(skip_locked=True)
        )
        self._free = free.with_only_columns(*self._found)
        # PostgreSQL might run a plain subquery more than once, and take more than the limit.
        picked = free.cte("picked")
        self._claim = (
            update(events)
            .where(columns.uuid.in_(select(picked.c.uuid)))
            .values(lease)
            .returning(*self._found)
        )
        self._take = (
            update(events).where(columns.uuid.in_(bindparam("uuids", expanding=True))).values(lease)
        )
        mine = and_(
            columns.uuid == bindparam("b_uuid"), columns.lease_token == bindparam("b_token")
        )
        current = and_(mine, columns.version == bindparam("b_version"))
        unfinished = and_(current, columns.state == EventState.NEW)
        given_back: dict[str, Any] = {
            "lease_owner": null(),
            "lease_until": null(),
            "lease_token": null(),
        }
        # The token stays: if the commit of the handler's transaction is in doubt, the next attempt
        # finds the event processed by this very lease.
        self._processed = (
            update(events)
            .where(current)
            .values(state=EventState.PROCESSED, lease_owner=null(), lease_until=null())
        )
        self._renew = (
            update(events)
            .where(mine, columns.state == EventState.NEW)
            .values(lease_until=lease["lease_until"])
        )
        self._release = (
            update(events)
            .where(mine, columns.state == EventState.NEW)
            .values(attempts=columns.attempts - 1, **given_back)
        )
        error: ColumnElement[Any] = bindparam("error")
        self._postpone = (
            update(events)
            .where(unfinished)
            .values(
                attempts=columns.attempts - bindparam("uncounted", type_=Integer()),
                due_at=moment(bindparam("pause", type_=Float())),
                last_error=error,
                **given_back,
            )
        )
        self._bury = (
            update(events)
            .where(unfinished)
            .values(state=EventState.DEAD, dead_at=moment(), last_error=error, **given_back)
        )

    # -- taking events

    async def claim(self, most: int, lease: float) -> list[ClaimedEvent]:
        """Take events that are due, oldest first, so that no other host processes them.

        Args:
            most: how many at most.
            lease: for how many seconds.
        """
        token = secrets.token_hex(16)
        values = {"token": token, "lease": lease}
        if self.shard.dialect == "mysql":
            rows = await self._claim_in_two_steps(most, values)
        else:
            rows = await self._claim_in_one_step(most, values)
        events = [ClaimedEvent(*(*row, token)) for row in rows]
        events.sort(key=lambda event: event.due_at)
        return events

    async def _claim_in_one_step(self, most: int, values: dict[str, Any]) -> Sequence[Any]:
        values["most"] = most
        async with self.shard.write.begin() as connection:
            result = await connection.execute(self._claim, values, execution_options=_OPTIONS)
            return result.all()

    async def _claim_in_two_steps(self, most: int, values: dict[str, Any]) -> Sequence[Any]:
        # Its default isolation would lock the gaps between rows, and so hold up who adds events.
        connection = await self.shard.connect("READ COMMITTED")
        async with aclosing(connection), connection.begin():
            rows = (await connection.execute(self._free, {"most": most})).all()
            if rows:
                uuids = [row.uuid for row in rows]
                await connection.execute(
                    self._take, {**values, "uuids": uuids}, execution_options=_OPTIONS
                )
        return [(*row[:3], row.attempts + 1, *row[4:]) for row in rows]

    async def renew(self, event: ClaimedEvent, lease: float) -> bool:
        """Keep an event for longer; returns whether it was still this host's."""
        return await self._change(self._renew, event, lease=lease)

    async def release(self, event: ClaimedEvent) -> bool:
        """Give an event back as if it had not been begun."""
        return await self._change(self._release, event)

    # -- what becomes of them

    async def mark_processed(
        self, event: ClaimedEvent, connection: AsyncConnection | None = None
    ) -> bool:
        """Note that an event was processed.

        Args:
            event: the event.
            connection: with the transaction to do it in; one of its own if not given.

        Returns:
            Whether it was still this host's, and the same; nothing has changed if not.
        """
        if connection is None:
            return await self._change(self._processed, event, version=event.version)
        values = {"b_uuid": event.uuid, "b_token": event.token, "b_version": event.version}
        result = await connection.execute(self._processed, values, execution_options=_OPTIONS)
        return bool(result.rowcount)

    async def split(self, event: ClaimedEvent, chains: Iterable[str]) -> bool:
        """Put an event for each handler in the place of one for all.

        Returns:
            Whether it was still this host's.
        """
        columns = self._events.c
        rows = [
            {
                "uuid": _branch_uuid(event.uuid, chain),
                "logged_at": event.due_at,
                "due_at": event.due_at,
                "value": event.value,
                "chain": chain,
            }
            for chain in chains
        ]
        async with self.shard.write.begin() as connection:
            if not await self.mark_processed(event, connection):
                return False
            names = [row["uuid"] for row in rows]
            found = await connection.scalars(select(columns.uuid).where(columns.uuid.in_(names)))
            there = set(found)
            rows = [row for row in rows if row["uuid"] not in there]
            if rows:
                await connection.execute(insert(self._events), rows, execution_options=_OPTIONS)
        return True

    async def postpone(
        self, event: ClaimedEvent, error: str, pause: float, *, counts: bool = True
    ) -> bool:
        """Have an event tried again later.

        Args:
            event: the event.
            error: why it was not processed.
            pause: seconds until it is due again.
            counts: whether this was an attempt.

        Returns:
            Whether it was still this host's.
        """
        return await self._change(
            self._postpone,
            event,
            version=event.version,
            error=error[:_LONGEST_ERROR],
            pause=pause,
            uncounted=int(not counts),
        )

    async def bury(self, event: ClaimedEvent, error: str) -> bool:
        """Give an event up; returns whether it was still this host's."""
        return await self._change(
            self._bury, event, version=event.version, error=error[:_LONGEST_ERROR]
        )

    async def _change(self, statement: Executable, event: ClaimedEvent, **values: Any) -> bool:
        values |= {"b_uuid": event.uuid, "b_token": event.token}
        if "version" in values:
            values["b_version"] = values.pop("version")
        return bool(await self._execute(statement, values))

    async def _execute(self, statement: Executable, values: dict[str, Any] | None = None) -> int:
        async with self.shard.write.begin() as connection:
            result: Any = await connection.execute(
                statement, values or {}, execution_options=_OPTIONS
            )
            changed: int = result.rowcount
            return changed

    # -- looking on

    async def look(self) -> Outlook:
        """Return what there is to be done."""
        columns = self._events.c
        is_new = columns.state == EventState.NEW
        statement = select(
            _first(columns.due_at, is_new, columns.lease_token.is_(None)),
            _first(columns.due_at, is_new),
            moment(),
        )
        async with self.shard.read.connect() as connection:
            free, oldest, now = (await connection.execute(statement)).one()
        return Outlook(
            pause=None if free is None else max((free - now).total_seconds(), 0.0),
            lateness=0.0 if oldest is None else max((now - oldest).total_seconds(), 0.0),
        )

    async def count_dead(self) -> int:
        """Return how many dead events there are."""
        is_dead = self._events.c.state == EventState.DEAD
        async with self.shard.read.connect() as connection:
            found: int = await connection.scalar(select(func.count()).where(is_dead)) or 0
            return found

    async def dead_events(self, limit: int) -> list[DeadEvent]:
        """Return dead events, the latest first."""
        columns = self._events.c
        statement = (
            select(
                columns.uuid,
                columns.value,
                columns.chain,
                columns.attempts,
                columns.last_error,
                columns.dead_at,
            )
            .where(columns.state == EventState.DEAD)
            .order_by(columns.dead_at.desc())
            .limit(limit)
        )
        async with self.shard.read.connect() as connection:
            return [DeadEvent(*row) for row in await connection.execute(statement)]

    async def requeue(self, uuid: str) -> bool:
        """Have a dead event processed after all; returns whether there was one."""
        columns = self._events.c
        statement = (
            update(self._events)
            .where(columns.uuid == uuid, columns.state == EventState.DEAD)
            .values(
                state=EventState.NEW,
                due_at=moment(),
                attempts=0,
                version=columns.version + 1,
                dead_at=null(),
            )
        )
        return bool(await self._execute(statement))

    async def drop(self, uuid: str) -> bool:
        """Delete an event that was not processed; returns whether there was one."""
        columns = self._events.c
        statement = delete(self._events).where(
            columns.uuid == uuid, columns.state != EventState.PROCESSED
        )
        return bool(await self._execute(statement))


def _first(column: ColumnElement[Any], *conditions: ColumnElement[bool]) -> ColumnElement[Any]:
    return select(column).where(*conditions).order_by(column).limit(1).scalar_subquery()


def _branch_uuid(uuid: str, chain: str) -> str:
    name = f"{uuid}/{chain}"
    if len(name) > _LONGEST_UUID:
        digest = sha256(name.encode()).hexdigest()
        name = f"{name[: _LONGEST_UUID - len(digest) - 1]}/{digest}"
    return name
