"""The relay: takes messages out of the outbox, and publishes them to the broker.

Each message is published at least once, those of a key in order. A crash between the broker's
confirmation and its mark in the outbox publishes a message again, under the same name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from afresh.db.logs.worker import Worker, fetch, patience
from afresh.db.shards import Shard
from afresh.db.watchers import Signal
from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.handlers import Handlers
from afresh.primitives.tasks import start_background

from .dead import OutboxDesk, OutboxFigures
from .leases import BucketLeases
from .outbox_queries import RelayQueries
from .pipeline import Pipeline, Publisher, Settled, WaitingMessage
from .tables import BrokerTables
from .telemetry import TraceOf, look
from .transport import Outcome, OutgoingMessage, PublishResult, Transport
from .watching import PublishedMessage

__all__ = ["Relay", "RelayOptions"]

_log = logging.getLogger("afresh.brokers")

_OPTIONS = {"touches": ()}
_COUNT_EVERY = 5.0
_FEW = 64
"""Messages in hand that are read once more without a thought."""
_AGAIN = 0.1
"""Seconds after messages were found until it is seen which of them have to wait."""
_DRAIN = 5.0
"""Seconds that the broker gets to confirm the last messages."""

_attributes = msgspec.json.Decoder(dict[str, str]).decode


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
        pauses: while the broker is away, before it is tried again; messages are not charged for it.
        confirm: how long the broker may take to confirm one.
        dead_head: what becomes of later messages of a key when one is dead, by destination: they
            "skip" it (the default), or it "halt"s them until it is requeued or dropped.
        strict: publish in the order of commits even where transactions did not wait for each
            other; PostgreSQL only. A long transaction holds everything up then.
        keep: how long published messages stay in the outbox.
        trace: how the span of a publication is related to that of the command, where OpenTelemetry
            records: by a "link", or as that of its "parent".
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
    trace: TraceOf = "link"


class Relay(Worker, Publisher):
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
        halting = [name for name, policy in self.options.dead_head.items() if policy == "halt"]
        self._desk = OutboxDesk(shard, tables)
        self._shard = shard
        self._transport = transport
        self._watchers = watchers
        self._leases = BucketLeases(shard, tables.leases, host_id, self.options.lease)
        self._queries = RelayQueries(
            tables, host_id, shard.dialect, strict=self.options.strict, halting=halting
        )
        self._pipeline = Pipeline(self, self.options.window)
        # What comes free in the middle of the outbox may stand before what was read already.
        self._sweeps_only = self.options.strict or bool(halting)
        self._swept_at = -math.inf
        self._swept: frozenset[int] = frozenset()
        self._after = 0
        self._renewing: asyncio.Task[None] | None = None
        self._failures = 0
        self._connect_at = -math.inf
        self._polls = RetryDelays.fixed(self.options.poll)
        self._figures = OutboxFigures(0, 0.0, 0)
        self._counted_at = -math.inf

    # -- working

    async def prepare(self) -> None:
        await self._leases.prepare()
        self._renewing = start_background(self._keep_leases(), name=f"afresh: {self.name}: leases")

    async def work(self, *, signalled: bool) -> float:
        pipeline = self._pipeline
        if pipeline.error is not None:
            error = pipeline.error
            pipeline.resume()
            raise error
        await self._count_if_due()
        if not self._leases.owned:
            return min(self._polls[1], self.options.renew)
        if not await self._is_connected():
            return max(0.0, self._connect_at - current_clock().now())
        if await self._feed():
            return min(self._polls[1], _AGAIN)
        return await self._pause()

    async def _feed(self) -> bool:
        """Hand messages to the pipeline as it has room, until there are no more.

        Returns:
            Whether there were any.
        """
        pipeline = self._pipeline
        fetched = self.options.fetch
        found = False
        while self.unavailable is None:
            buckets = self._leases.owned
            after, size = self._after, fetched
            is_sweep = self._is_sweep_due(buckets)
            if is_sweep:
                after, size = 0, fetched + len(pipeline.held)
                self._swept_at, self._swept = current_clock().now(), buckets
            pipeline.begin(is_sweep=is_sweep)
            messages = await self._fetch(after, size, buckets)
            found = pipeline.add(messages, is_sweep=is_sweep) > 0 or found
            if messages:
                self._after = messages[-1].id
            if len(messages) < size and not pipeline.must_sweep:
                break
            await pipeline.room(fetched)
            if pipeline.error is not None:
                break
            await self._count_if_due()
        return found

    def _is_sweep_due(self, buckets: frozenset[int]) -> bool:
        """Whether to read the outbox from its beginning, and not on from where it was read to.

        What was committed late may stand there. Reading again what is in hand is cheap where that
        is little.
        """
        return (
            self._sweeps_only
            or buckets != self._swept
            or self._pipeline.must_sweep
            or len(self._pipeline.held) <= _FEW
            or current_clock().now() - self._swept_at >= self.options.poll
        )

    async def _keep_leases(self) -> None:
        failures = 0
        while True:
            before = self._leases.owned
            try:
                async with patience():
                    owned = await self._leases.renew(self._busy)
            except Exception as error:
                failures += 1
                if failures == 1:
                    _log.warning("The leases on the %s can't be renewed: %s", self.name, error)
            else:
                failures = 0
                if owned - before:
                    self.signal.set()
            await current_clock().sleep(self.options.renew)

    def _busy(self) -> set[int]:
        return {waiting.bucket for waiting in self._pipeline.held.values()}

    async def _is_connected(self) -> bool:
        if self.unavailable is None:
            return True
        if current_clock().now() < self._connect_at:
            return False
        try:
            await self._transport.start()
        except Exception as error:
            self._wait_for_broker(str(error))
            return False
        _log.info("The broker can be reached again.")
        self.unavailable = None
        return True

    def _wait_for_broker(self, error: str) -> None:
        if self.unavailable is None and not self._failures:
            _log.warning("The broker can't be reached, so messages wait: %s", error)
        self.unavailable = error or "unknown"
        self._failures += 1
        self._connect_at = current_clock().now() + self.options.pauses[self._failures]
        self.signal.set()

    async def _pause(self) -> float:
        values = {"buckets": sorted(self._leases.owned)}
        ((due,),) = await fetch(self._shard, self._queries.next, values)
        pause = self._polls[1]
        if due is not None:
            pause = min(pause, max(0.01, due.timestamp() - time.time()))
        return pause

    async def _fetch(self, after: int, size: int, buckets: Collection[int]) -> list[WaitingMessage]:
        held = [place for place in self._pipeline.held if place <= after]
        values = {"after": after, "buckets": sorted(buckets), "size": size, "held": held}
        return [
            WaitingMessage(
                row.id,
                row.bucket,
                (row.destination, row.key) if row.is_ordered else None,
                row.attempts,
                row.was_held_up,
                OutgoingMessage(
                    row.message_id,
                    row.destination,
                    row.type,
                    row.body,
                    row.content_type,
                    {**_attributes(row.headers), "sequence": str(row.id)},
                    {},
                    row.key,
                ),
            )
            for row in await fetch(self._shard, self._queries.due, values)
        ]

    # -- publishing

    def may_publish(self, waiting: WaitingMessage) -> bool:
        return self._leases.has(waiting.bucket)

    async def publish(self, waiting: WaitingMessage) -> PublishResult:
        message = waiting.message
        recorder = look()
        if recorder is None:
            result = await self._publish(message)
        else:
            recording = recorder.publish(message, self.options.trace)
            outcome, error = "cancel", None
            try:
                result = await self._publish(recording.message)
                outcome, error = result.outcome.value, result.error
            finally:
                recording.end(outcome, error)
        if result.is_confirmed:
            self.published += 1
            self._failures = 0
        elif result.outcome is not Outcome.UNAVAILABLE:
            self.refused += 1
        if self._watchers:
            self._watchers.call(PublishedMessage(message, result))
        return result

    async def _publish(self, message: OutgoingMessage) -> PublishResult:
        try:
            async with asyncio.timeout(self.options.confirm):
                (result,) = await self._transport.publish([message])
        except TimeoutError:
            error = f"It was not confirmed within {self.options.confirm:g} s."
            is_there = self._transport.health()["connected"]
            return PublishResult(Outcome.TRANSIENT if is_there else Outcome.UNAVAILABLE, error)
        except Exception as error:
            return PublishResult(Outcome.TRANSIENT, f"{type(error).__name__}: {error}")
        return result

    def holds_up(self, settled: Settled) -> bool:
        return (
            settled.result.outcome is Outcome.TRANSIENT
            or self.options.dead_head.get(settled.waiting.message.destination) == "halt"
        )

    def lost(self, result: PublishResult) -> None:
        if self.unavailable is None:
            self._wait_for_broker(result.error or "")

    async def note(self, settled: Sequence[Settled]) -> None:
        confirmed = [each.waiting.id for each in settled if each.result.is_confirmed]
        failed = [each for each in settled if not each.result.is_confirmed]
        async with patience():
            await self._note(confirmed, failed)
        if failed or any(each.waiting.was_held_up for each in settled):
            self.signal.set()

    async def _note(self, confirmed: Sequence[int], failed: Sequence[Settled]) -> None:
        died = 0
        async with self._shard.write.begin() as connection:
            if confirmed:
                await connection.execute(
                    self._queries.mark, {"ids": sorted(confirmed)}, execution_options=_OPTIONS
                )
            for each in failed:
                waiting, result = each.waiting, each.result
                error = (result.error or result.outcome.value)[:2000]
                values: dict[str, Any] = {"one": waiting.id, "error": error}
                statement = self._queries.postpone
                is_last = waiting.attempts + 1 >= self.options.attempts
                if result.outcome is Outcome.PERMANENT or is_last:
                    died += 1
                    _log.error("The message %s is dead: %s", waiting.message.id, error)
                    statement = self._queries.bury
                else:
                    values["delay"] = self.options.retries[waiting.attempts + 1]
                await connection.execute(statement, values, execution_options=_OPTIONS)
        if died:
            self.died += died
            self._counted_at = -math.inf

    async def aclose(self) -> None:
        """Publish no more, see what is being published confirmed, and let other hosts take over."""
        await super().aclose()
        await self._pipeline.drain(_DRAIN)
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
            with contextlib.suppress(Exception):
                await self._leases.release()

    # -- looking at it

    async def count(self) -> None:
        """Count what `health()` tells."""
        self._counted_at = current_clock().now()
        figures = self._figures = await self._desk.figures()
        if (recorder := look()) is not None:
            recorder.levels(self._shard.name, figures.pending, figures.oldest, figures.dead)

    async def _count_if_due(self) -> None:
        if current_clock().now() - self._counted_at >= _COUNT_EVERY:
            await self.count()

    def health(self) -> dict[str, Any]:
        """Return how the relay is doing.

        Returns:
            how many messages were `published`, `refused` and `died` since the start; how many are
            `in_hand`, to be published or noted by this host; how many are `pending`, at least, and
            the age of the `oldest` in seconds; how many are `dead`; how many parts of the outbox
            this host has: `buckets`; `unavailable`, why the broker can't be reached, and the
            `error` of the last round, None if all is well.
        """
        return {
            "published": self.published,
            "refused": self.refused,
            "died": self.died,
            "in_hand": len(self._pipeline.held),
            "pending": self._figures.pending,
            "oldest": round(self._figures.oldest, 3),
            "dead": self._figures.dead,
            "buckets": len(self._leases.owned),
            "unavailable": self.unavailable,
            "error": self.error,
        }
