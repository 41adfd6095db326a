"""The relay: takes messages out of the outbox, and publishes them to the broker.

Each message is published at least once, those of a key in order. A crash between the broker's
confirmation and its mark in the outbox publishes a message again, under the same name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from afresh.db.logs.worker import Worker
from afresh.db.shards import Shard
from afresh.db.watchers import Signal
from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.handlers import Handlers

from .dead import OutboxDesk, OutboxFigures
from .leases import BucketLeases
from .outbox_queries import RelayQueries
from .tables import BrokerTables
from .transport import Outcome, OutgoingMessage, PublishResult, Transport
from .watching import PublishedMessage

__all__ = ["Relay", "RelayOptions"]

_log = logging.getLogger("afresh.brokers")

_OPTIONS = {"touches": ()}
_COUNT_EVERY = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOptions:
    """How messages are published. All times are in seconds.

    Args:
        poll: the outbox is looked at this often, ±10 %, whether or not something is signalled.
        fetch: how many messages are read at once.
        window: how many are published at once, and not confirmed yet.
        lease: how long a host has a part of the outbox to itself unless it renews that.
        renew: how often it does.
        retries: the pauses after a message was refused for now.
        attempts: after so many refusals a message is dead.
        pauses: of the whole relay while the broker is away; messages are not charged for it.
        confirm: how long the broker may take to confirm one.
        dead_head: what becomes of later messages of a key when one is dead, by destination: they
            "skip" it (the default), or it "halt"s them until it is requeued or dropped.
        strict: publish in the order of commits even where transactions did not wait for each
            other; PostgreSQL only. A long transaction holds everything up then.
        keep: how long published messages stay in the outbox.
    """

    poll: float = 1.0
    fetch: int = 256
    window: int = 128
    lease: float = 15.0
    renew: float = 5.0
    retries: RetryDelays = field(default_factory=lambda: RetryDelays.exponential(1, 300, 2, 0.2))
    attempts: int = 20
    pauses: RetryDelays = field(default_factory=lambda: RetryDelays.exponential(0.5, 30, 2, 0.1))
    confirm: float = 10.0
    dead_head: Mapping[str, Literal["skip", "halt"]] = field(default_factory=dict)
    strict: bool = False
    keep: float = 24 * 3600.0


class _Row(NamedTuple):
    id: int
    attempts: int
    message: OutgoingMessage


class Relay(Worker):
    """Publishes the outbox of one shard, as far as this host has leases on it.

    Args:
        shard: where the outbox is.
        tables: the outbox and its leases.
        transport: publishes; started already, or it is tried again.
        host_id: of this host.
        signal: is set when something was written to the outbox.
        options: how messages are published.
        watchers: are told of each message.
    """

    def __init__(
        self,
        shard: Shard,
        tables: BrokerTables,
        transport: Transport,
        *,
        host_id: str,
        signal: Signal,
        options: RelayOptions | None = None,
        watchers: Handlers[PublishedMessage] | None = None,
    ) -> None:
        super().__init__(f"outbox{f' of {shard.name}' if shard.name else ''}", signal)
        self.options: RelayOptions = options or RelayOptions()
        self.published: int = 0
        """How many messages the broker has confirmed."""
        self.refused: int = 0
        """How many attempts it refused."""
        self.died: int = 0
        """How many messages were given up."""
        self.unavailable: str | None = None
        """Why the broker can't be reached; None if it can."""
        if self.options.strict and shard.dialect != "postgresql":
            raise ValueError("RelayOptions: strict order needs PostgreSQL.")
        self._desk = OutboxDesk(shard, tables)
        self._shard = shard
        self._transport = transport
        self._watchers = watchers
        self._leases = BucketLeases(shard, tables.leases, host_id, self.options.lease)
        self._renewed_at = -1e9
        self._failures = 0
        self._polls = RetryDelays.fixed(self.options.poll)
        self._figures = OutboxFigures(0, 0.0, 0)
        self._counted_at = -1e9
        self._queries = RelayQueries(tables, host_id, strict=self.options.strict)

    # -- working

    async def prepare(self) -> None:
        await self._leases.prepare()

    async def work(self, *, signalled: bool) -> float:
        after = 0
        while True:
            await self._renew()
            if not self._leases.owned:
                return min(self._polls[1], self.options.renew)
            if not await self._is_connected():
                self._failures += 1
                return self.options.pauses[self._failures]
            rows = await self._fetch(after)
            if not rows:
                break
            if not await self._publish(rows):
                self._failures += 1
                return self.options.pauses[self._failures]
            self._failures = 0
            if any(row.attempts for row in rows):
                after = 0  # what waited for them may go now
            elif len(rows) < self.options.fetch:
                break
            else:
                # On from here; what comes late with a lower id is found in the next round.
                after = rows[-1].id
        return await self._pause()

    async def _renew(self) -> None:
        now = current_clock().now()
        if now - self._renewed_at >= self.options.renew:
            await self._leases.renew()
            self._renewed_at = now

    async def _is_connected(self) -> bool:
        if self.unavailable is None:
            return True
        try:
            await self._transport.start()
        except Exception as error:
            self._note_unavailable(str(error))
            return False
        _log.info("The broker can be reached again.")
        self.unavailable = None
        return True

    def _note_unavailable(self, error: str) -> None:
        if self.unavailable is None:
            _log.warning("The broker can't be reached, so messages wait: %s", error)
        self.unavailable = error or "unknown"

    async def _pause(self) -> float:
        if current_clock().now() - self._counted_at >= _COUNT_EVERY:
            await self.count()
        async with self._shard.read.connect() as connection:
            values = {"buckets": sorted(self._leases.owned)}
            due: datetime | None = (await connection.execute(self._queries.next, values)).scalar()
        pause = self._polls[1]
        if due is not None:
            pause = min(pause, max(0.01, due.timestamp() - time.time()))
        return pause

    async def _fetch(self, after: int) -> list[_Row]:
        halting = [name for name, policy in self.options.dead_head.items() if policy == "halt"]
        values = {
            "after": after,
            "buckets": sorted(self._leases.owned),
            "halting": halting,
            "size": self.options.fetch,
        }
        async with self._shard.read.connect() as connection:
            found = (await connection.execute(self._queries.due, values)).all()
        return [
            _Row(
                row.id,
                row.attempts,
                OutgoingMessage(
                    row.message_id,
                    row.destination,
                    row.type,
                    row.body,
                    row.content_type,
                    {**msgspec.json.decode(row.headers), "sequence": str(row.id)},
                    {},
                    row.key,
                ),
            )
            for row in found
        ]

    async def _publish(self, rows: Sequence[_Row]) -> bool:
        """Publish messages, and note what became of them; returns whether the broker was there."""
        window = asyncio.Semaphore(self.options.window)
        chains: dict[Any, list[_Row]] = {}
        for row in rows:
            message = row.message
            key = (message.destination, message.key) if message.key is not None else row.id
            chains.setdefault(key, []).append(row)
        confirmed: list[int] = []
        failed: list[tuple[_Row, PublishResult]] = []

        async def follow(chain: list[_Row]) -> None:
            for row in chain:
                async with window:
                    if self.unavailable is not None:
                        return
                    result = await self._publish_one(row.message)
                if self._watchers:
                    self._watchers.call(PublishedMessage(row.message, result))
                if result.is_confirmed:
                    confirmed.append(row.id)
                    continue
                if result.outcome is Outcome.UNAVAILABLE:
                    self._note_unavailable(result.error or "")
                    return
                failed.append((row, result))
                if result.outcome is Outcome.TRANSIENT or self._halts(row.message.destination):
                    return  # the later ones of the key wait for it

        try:
            await asyncio.gather(*map(follow, chains.values()))
        finally:
            if confirmed or failed:
                await self._note(confirmed, failed)
        return self.unavailable is None

    def _halts(self, destination: str) -> bool:
        return self.options.dead_head.get(destination) == "halt"

    async def _publish_one(self, message: OutgoingMessage) -> PublishResult:
        try:
            async with asyncio.timeout(self.options.confirm):
                (result,) = await self._transport.publish([message])
        except TimeoutError:
            error = f"It was not confirmed within {self.options.confirm:g} s."
            is_there = self._transport.health()["connected"]
            return PublishResult(Outcome.TRANSIENT if is_there else Outcome.UNAVAILABLE, error)
        return result

    async def _note(
        self, confirmed: Sequence[int], failed: Sequence[tuple[_Row, PublishResult]]
    ) -> None:
        async with self._shard.write.begin() as connection:
            if confirmed:
                await connection.execute(
                    self._queries.mark, {"ids": sorted(confirmed)}, execution_options=_OPTIONS
                )
            for row, result in failed:
                error = (result.error or result.outcome.value)[:2000]
                values: dict[str, Any] = {"one": row.id, "error": error}
                is_last = row.attempts + 1 >= self.options.attempts
                if result.outcome is Outcome.PERMANENT or is_last:
                    self.died += 1
                    self._counted_at = -1e9
                    _log.error("The message %s is dead: %s", row.message.id, error)
                    statement = self._queries.bury
                else:
                    values["delay"] = self.options.retries[row.attempts + 1]
                    statement = self._queries.postpone
                await connection.execute(statement, values, execution_options=_OPTIONS)
        self.published += len(confirmed)
        self.refused += len(failed)

    async def aclose(self) -> None:
        """Publish no more, and let other hosts take over at once."""
        await super().aclose()
        with contextlib.suppress(Exception):
            await self._leases.release()

    # -- looking at it

    async def count(self) -> None:
        """Count what `health()` tells."""
        self._counted_at = current_clock().now()
        self._figures = await self._desk.figures()

    def health(self) -> dict[str, Any]:
        """Return how the relay is doing.

        Returns:
            how many messages were `published`, `refused` and `died` since the start; how many are
            `pending`, at least, and the age of the `oldest` in seconds; how many are `dead`; how
            many parts of the outbox this host has: `buckets`; `unavailable`, why the broker can't
            be reached, and the `error` of the last round, None if all is well.
        """
        return {
            "published": self.published,
            "refused": self.refused,
            "died": self.died,
            "pending": self._figures.pending,
            "oldest": round(self._figures.oldest, 3),
            "dead": self._figures.dead,
            "buckets": len(self._leases.owned),
            "unavailable": self.unavailable,
            "error": self.error,
        }
