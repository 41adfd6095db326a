"""A subscription at Kafka: what is handed over, and how far the group is.

The position that a group commits stays behind the oldest record that is not settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

from aiokafka import ConsumerRebalanceListener, TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import CommitFailedError  # type: ignore[import-untyped]

from afresh.primitives.tasks import start_background

from ..transport import Ack, DeadLetter, Disposition, Handler, IncomingMessage, Retry, Subscription
from .base import BaseSubscribed, end
from .headers import DELIVERIES, DUE, KEY, death_headers, number_in
from .kafka_records import dead_name, group_name, headers_of, incoming, retry_name

if TYPE_CHECKING:
    from .kafka import KafkaTransport

__all__ = ["KafkaSubscribed"]

SESSION_SECONDS = 10.0
"""A host that was not heard of in this time is out, and others get its partitions."""

LATER_MOST = 1_000
"""How many records of a group wait here for their time; more are left at the broker meanwhile."""

_LOOK_SECONDS = 1.0
_POLL_SECONDS = 0.5
_COMMIT_SECONDS = 0.1
_COMMIT_WITHIN = 5.0
_REVOKE_SECONDS = 5.0
_LEAVE_SECONDS = 30.0  # one that is about to join is let in first
# Whether a consumer is alive is told by its heartbeat; how long handlers take is their affair.
_HANDLED_MILLISECONDS = 86_400_000


class _Progress:
    """How far the records of a partition are handled."""

    def __init__(self) -> None:
        self.next: int | None = None
        self.committed: int | None = None
        self.unsettled: set[int] = set()

    def take(self, offset: int) -> None:
        self.unsettled.add(offset)
        self.next = offset + 1

    @property
    def position(self) -> int | None:
        """The oldest record that is not settled."""
        return min(self.unsettled, default=self.next)


class KafkaSubscribed(BaseSubscribed["KafkaTransport"]):
    """Reads records, hands them over, and commits how far they are settled."""

    def __init__(
        self, transport: KafkaTransport, subscription: Subscription, handler: Handler
    ) -> None:
        super().__init__(transport, subscription, handler)
        self._consumer: Any = None
        self._progress: dict[TopicPartition, _Progress] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        subscription = self._subscription
        await self._transport._need_all(subscription)
        if subscription.mode == "group":
            await self._begin()
        await self._attach()
        self._tasks = [
            start_background(self._work(), name=f"subscription of {self._title}"),
            start_background(self._keep_committing(), name=f"positions of {self._title}"),
        ]

    async def _begin(self) -> None:
        """Let a group that is new hear of what happens from now on."""
        subscription = self._subscription
        partitions = await self._transport._partitions_of(subscription.destination)
        async with self._transport._positions(subscription, partitions) as consumer:
            committed = [await consumer.committed(each) for each in partitions]
            if all(each is None for each in committed):
                with contextlib.suppress(CommitFailedError):  # others of the group were faster
                    await consumer.commit(await consumer.end_offsets(partitions))

    async def _attach(self) -> None:
        await self._detach()
        subscription = self._subscription
        assert self._transport._consumer is not None
        if subscription.mode == "broadcast":
            consumer = self._transport._consumer(
                enable_auto_commit=False, auto_offset_reset="latest"
            )
            self._consumer = consumer
            await consumer.start()
            partitions = await self._transport._partitions_of(subscription.destination)
            consumer.assign(partitions)
            for each in partitions:
                progress = self._progress.get(each)
                if progress is not None and progress.next is not None:
                    consumer.seek(each, progress.next)
                await consumer.position(each)
            return
        consumer = self._transport._consumer(
            group_id=group_name(subscription),
            enable_auto_commit=False,
            # Positions of new groups were set before: what has none is a partition that is new.
            auto_offset_reset="earliest",
            max_poll_interval_ms=_HANDLED_MILLISECONDS,
            session_timeout_ms=int(SESSION_SECONDS * 1000),
            heartbeat_interval_ms=int(SESSION_SECONDS * 300),
            rebalance_timeout_ms=int(2 * _REVOKE_SECONDS * 1000),
        )
        self._consumer = consumer
        await consumer.start()
        # Only now, so that nobody waits until the group has let it in.
        topics = [subscription.destination, retry_name(subscription)]
        consumer.subscribe(topics, listener=_Listener(self))

    async def _detach(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await consumer.stop()

    async def _work(self) -> None:
        while True:
            try:
                if self._consumer is None:
                    await self._attach()
                    self._error = None
                self._changed.clear()
                room = self._subscription.fetched - self._lanes.in_flight
                if room < 1:
                    await self._changed.wait()
                    continue
                self._hold_back()
                found = await self._consumer.getmany(
                    timeout_ms=int(_POLL_SECONDS * 1000), max_records=room
                )
            except Exception as error:
                self._error = f"{type(error).__name__}: {error}"
                await self._detach()
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            for partition, records in found.items():
                for record in records:
                    await self._take(partition, record)

    def _hold_back(self) -> None:
        """Leave what is to be handled later at the broker while too much of it is here."""
        consumer = self._consumer
        retried = [
            each for each in consumer.assignment() if each.topic != self._subscription.destination
        ]
        if len(self._later) >= LATER_MOST:
            consumer.pause(*retried)
        elif paused := consumer.paused():
            consumer.resume(*paused)

    async def _take(self, partition: TopicPartition, record: Any) -> None:
        progress = self._progress.setdefault(partition, _Progress())
        progress.take(record.offset)
        delay = number_in(headers_of(record), DUE) - time.time()
        if delay > 0:
            self._wait(delay, lambda: self._hand_over(partition, record, 1))
        else:
            await self._hand_over(partition, record, 1)

    async def _hand_over(self, partition: TopicPartition, record: Any, deliveries: int) -> None:
        message = incoming(record, self._subscription, deliveries)
        progress = self._progress.get(partition)
        if progress is None or record.offset not in progress.unsettled:
            return  # others of the group have the partition now

        async def settle(disposition: Disposition) -> None:
            if self._subscription.mode == "broadcast" and isinstance(disposition, Retry):
                again = deliveries + 1
                self._wait(disposition.delay, lambda: self._hand_over(partition, record, again))
                return
            await self._move(record, message, disposition)
            progress.unsettled.discard(record.offset)
            self._changed.set()

        await self._lanes.put(message, settle)

    async def _move(self, record: Any, message: IncomingMessage, disposition: Disposition) -> None:
        if isinstance(disposition, Ack) or self._subscription.mode == "broadcast":
            return
        topic, key = retry_name(self._subscription), message.key
        headers = headers_of(record) | {DELIVERIES: str(message.deliveries)}
        headers.pop(DUE, None)
        if message.key is not None:
            headers[KEY] = message.key
        if isinstance(disposition, DeadLetter):
            topic, key = dead_name(self._subscription), secrets.token_hex(8)
            headers |= death_headers(disposition)
        else:
            headers[DUE] = str(time.time() + disposition.delay)
        while True:
            # Kafka hands nothing over again to who has it, so it is held until this works.
            try:
                await self._transport._send(topic, key, record.value or b"", headers)
            except Exception as error:
                self._error = f"{type(error).__name__}: {error}"
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                return

    # -- positions

    async def _keep_committing(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_SECONDS)
            with contextlib.suppress(Exception):  # it is tried again, or others have taken over
                await self._commit()

    async def _commit(self) -> None:
        if self._subscription.mode == "broadcast" or self._consumer is None:
            return
        assigned = self._consumer.assignment()
        positions = {
            partition: (progress, progress.position)
            for partition, progress in self._progress.items()
            if partition in assigned and progress.position not in {None, progress.committed}
        }
        if positions:
            await self._consumer.commit(
                {partition: position for partition, (_, position) in positions.items()}
            )
            for progress, position in positions.values():
                progress.committed = position

    async def _give_up(self, revoked: set[TopicPartition]) -> None:
        """Let handlers end before others get the partitions."""
        ours = [self._progress[each] for each in revoked if each in self._progress]
        deadline = time.monotonic() + _REVOKE_SECONDS
        while any(each.unsettled for each in ours) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        with contextlib.suppress(Exception):  # then they come again, to whoever gets them
            await self._commit()
        for each in revoked:
            self._progress.pop(each, None)

    def _begin_anew(self, assigned: set[TopicPartition]) -> None:
        """Start where the group is."""
        for each in assigned:
            self._progress.pop(each, None)

    async def _close(self, drain: float) -> None:
        await end(*self._tasks[:1])
        await self._lanes.aclose(drain)
        await end(*self._tasks[1:], *self._later)
        with contextlib.suppress(Exception):  # they come again
            async with asyncio.timeout(_COMMIT_WITHIN):
                await self._commit()
        self._progress.clear()
        await self._detach()

    async def _own_lag(self) -> int | None:
        consumer = self._consumer
        if consumer is None:
            return None
        ends: dict[TopicPartition, int] = await consumer.end_offsets(list(consumer.assignment()))
        waiting = 0
        for each, last in ends.items():
            progress = self._progress.get(each)
            position = None if progress is None else progress.position
            waiting += last - (await consumer.position(each) if position is None else position)
        return waiting


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """What aiokafka tells of the partitions of a subscription."""

    def __init__(self, subscribed: KafkaSubscribed) -> None:
        self._subscribed = subscribed

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._subscribed._give_up(revoked)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._subscribed._begin_anew(assigned)
