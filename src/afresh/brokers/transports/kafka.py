"""Kafka, by FastStream and aiokafka: a topic for each destination, a consumer group for each group.

Records of a key are in one partition, and handled one after another; the position that a group
commits stays behind the oldest record that is not settled. What is to be handled again later goes
into a topic that its group alone reads, as do dead messages that are requeued; dead messages are
kept in a compacted topic of their own, by a name each, so that one can be taken out.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import NewTopic  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    CommitFailedError,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    RecordListTooLargeError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import ConsumerRecord  # type: ignore[import-untyped]
from faststream.kafka import KafkaBroker

from afresh.errors import InvalidStateError
from afresh.primitives.tasks import start_background

from ..envelope import split_headers, to_headers
from ..lanes import Lanes
from ..transport import (
    CONFIRMED,
    Ack,
    Capabilities,
    DeadLetter,
    DeadMessage,
    Disposition,
    Handler,
    IncomingMessage,
    Outcome,
    OutgoingMessage,
    PublishResult,
    Retry,
    Subscribed,
    Subscription,
    Transport,
)

__all__ = ["KafkaTransport"]

MAX_BYTES = 1_000_000
"""What brokers take unless they are told otherwise, less room for headers."""

SESSION_SECONDS = 10.0
"""A host that was not heard of in this time is out, and others get its partitions."""

LATER_MOST = 1_000
"""How many records of a group wait here for their time; more are left at the broker meanwhile."""

_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_POLL_SECONDS = 0.5
_COMMIT_SECONDS = 0.1
_REVOKE_SECONDS = 5.0
_LEAVE_SECONDS = 30.0  # one that is about to join is let in first
_ROOM = 48_576  # for headers
# Whether a consumer is alive is told by its heartbeat; how long handlers take is their affair.
_HANDLED_MILLISECONDS = 86_400_000
_KEY = "x-afresh-key"
_CONTENT_TYPE = "content-type"
_DELIVERIES = "x-afresh-deliveries"
_DUE = "x-afresh-due"
_REASON = "x-afresh-reason"
_ERROR = "x-afresh-error"
_DIED_AT = "x-afresh-died-at"
_OF_DEATH = {_DELIVERIES, _DUE, _REASON, _ERROR, _DIED_AT}
_RESERVED = {_KEY, _CONTENT_TYPE, "correlation_id", *_OF_DEATH}

_AWAY = (
    KafkaConnectionError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    OSError,  # which asyncio's TimeoutError is one of
)
_REFUSED = (
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)


class KafkaTransport(Transport):
    """A connection to Kafka.

    Args:
        url: ``kafka://host:9092,other:9092``.
        broker: a `faststream.kafka.KafkaBroker` in place of the address, for one that wants
            credentials; it stays yours, with its subscribers: start and stop it. Give it
            ``acks="all"`` and ``enable_idempotence=True``.
        max_bytes: the largest body that the brokers take.
        idempotent: whether the brokers drop what a producer sends twice as it got no answer; not
            all that speak the protocol can.
        partitions: of topics that are made here; their keys are shared out among them.
        replicas: on how many brokers a topic is kept, when it is made here.

    Example:
        ```python
        app = App(database=…, broker=Broker("kafka://localhost:9092", source="/shop"))
        ```
    """

    def __init__(
        self,
        url: str = "kafka://localhost:9092",
        *,
        broker: KafkaBroker | None = None,
        max_bytes: float = MAX_BYTES,
        idempotent: bool = True,
        partitions: int = 8,
        replicas: int = 1,
    ) -> None:
        self.capabilities: Capabilities = Capabilities(
            name="kafka",
            prefix="ce_",
            is_durable=True,
            ordered_keys=True,
            deduplicates=0,
            delays_retries=True,
            has_dead_letters=True,
            max_bytes=max_bytes,
        )
        self._servers = url.partition("://")[2].rstrip("/").split(",")
        self._is_owned = broker is None
        self._broker: KafkaBroker = broker or KafkaBroker(
            self._servers,
            acks="all",
            enable_idempotence=idempotent,
            max_request_size=int(max_bytes) + _ROOM,
            request_timeout_ms=int(_REQUEST_SECONDS * 1000),
            logger=None,
            apply_types=False,
        )
        self._partitions = partitions
        self._replicas = replicas
        self._consumer: Callable[..., AIOKafkaConsumer] | None = None
        self._is_connected = False
        self._watch: asyncio.Task[None] | None = None
        self._topics: set[str] = set()
        self._reconnected: list[Callable[[], object]] = []

    # -- the connection

    async def start(self) -> None:
        if self._consumer is not None:
            if not await self._look():
                raise ConnectionError("Kafka can't be reached; it is tried again.")
            return
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                if self._is_owned:
                    await _probe(self._servers)
                self._consumer = await self._broker.connect()
        except Exception as error:
            raise ConnectionError(f"Kafka can't be reached: {error}") from error
        self._is_connected = True
        self._watch = start_background(self._keep_looking(), name="connection to Kafka")

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._look()

    async def _look(self) -> bool:
        """Whether the brokers answer; subscriptions hear of it when they do again."""
        was_connected = self._is_connected
        self._is_connected = await self._answers()
        if self._is_connected and not was_connected:
            for function in list(self._reconnected):
                function()
        return self._is_connected

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._broker.config.admin_client.find_coordinator("afresh")
        except _AWAY:
            return False
        except Exception:  # a broker said so
            return True
        return True

    def health(self) -> dict[str, Any]:
        connected = self._is_connected
        return {"connected": connected, "error": None if connected else "Kafka is not connected."}

    async def aclose(self) -> None:
        self._is_connected = False
        watch, self._watch = self._watch, None
        if watch is None:
            return
        await _end(watch)
        self._consumer = None
        if self._is_owned:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await self._broker.stop()

    # -- topics

    async def _need(self, topic: str, partitions: int, settings: Mapping[str, str]) -> None:
        """Make a topic, unless it is there; what is refused is seen when it is used."""
        if topic in self._topics:
            return
        new = NewTopic(topic, partitions, self._replicas, topic_configs=dict(settings))
        with contextlib.suppress(AttributeError):  # aiokafka, where brokers name no controller
            await self._broker.config.admin_client.create_topics([new])
        self._topics.add(topic)

    async def _need_all(self, subscription: Subscription) -> None:
        await self._need(subscription.destination, self._partitions, {})
        if subscription.mode == "group":
            await self._need(_retry_name(subscription), self._partitions, {})
            await self._need(_dead_name(subscription), 1, {"cleanup.policy": "compact"})

    async def _partitions_of(self, topic: str) -> list[TopicPartition]:
        while True:
            for found in await self._broker.config.admin_client.describe_topics([topic]):
                if found["partitions"]:
                    numbers = sorted(each["partition"] for each in found["partitions"])
                    return [TopicPartition(topic, number) for number in numbers]
            await asyncio.sleep(0.05)

    # -- publishing

    async def publish(self, messages: Sequence[OutgoingMessage]) -> Sequence[PublishResult]:
        chains: dict[Any, list[int]] = {}
        for number, message in enumerate(messages):
            key = number if message.key is None else (message.destination, message.key)
            chains.setdefault(key, []).append(number)
        results: list[PublishResult] = [CONFIRMED] * len(messages)

        async def follow(chain: list[int]) -> None:
            for number in chain:
                results[number] = await self._publish_one(messages[number])

        await asyncio.gather(*map(follow, chains.values()))
        return results

    async def _publish_one(self, message: OutgoingMessage) -> PublishResult:
        if not self._is_connected:
            return PublishResult(Outcome.UNAVAILABLE, "Kafka is not connected.")
        if len(message.body) > self.capabilities.max_bytes:
            error = f"{len(message.body):,} bytes are more than {self.capabilities.max_bytes:,}."
            return PublishResult(Outcome.PERMANENT, error)
        headers = {
            **message.headers,
            **to_headers(message.attributes, self.capabilities.prefix),
            _CONTENT_TYPE: message.content_type,
        }
        try:
            await self._need(message.destination, self._partitions, {})
            await self._send(message.destination, message.key, message.body, headers)
        except _REFUSED as error:
            self._topics.discard(message.destination)
            return PublishResult(Outcome.PERMANENT, f"{type(error).__name__}: {error}")
        except Exception as error:
            if isinstance(error, _AWAY):
                self._is_connected = False
            outcome = Outcome.TRANSIENT if self._is_connected else Outcome.UNAVAILABLE
            return PublishResult(outcome, f"{type(error).__name__}: {error}")
        return CONFIRMED

    async def _send(
        self, topic: str, key: str | None, body: bytes | None, headers: dict[str, str]
    ) -> None:
        await self._broker.publish(
            body, topic, key=None if key is None else key.encode(), headers=headers
        )

    # -- consuming

    async def subscribe(self, subscription: Subscription, handler: Handler) -> Subscribed:
        if self._consumer is None:
            raise InvalidStateError("Start the transport before you subscribe.")
        subscribed = _Subscribed(self, subscription, handler)
        try:
            await subscribed.start()
        except Exception as error:
            await subscribed.aclose(0)
            raise ConnectionError(f"Kafka refuses the subscription: {error}") from error
        return subscribed

    # -- dead messages

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        found = await self._dead_of(subscription)
        return [_dead(record, subscription) for record in list(found.values())[:limit]]

    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        async def requeue(record: Any) -> None:
            headers = {
                name: value for name, value in _headers(record).items() if name not in _OF_DEATH
            }
            await self._send(_retry_name(subscription), headers.get(_KEY), record.value, headers)

        return await self._each_dead(subscription, ids, requeue)

    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        async def drop(record: Any) -> None:
            """Nothing but the deletion."""

        return await self._each_dead(subscription, ids, drop)

    async def _each_dead(
        self,
        subscription: Subscription,
        ids: Sequence[str] | None,
        do: Callable[[Any], Awaitable[None]],
    ) -> int:
        found = await self._dead_of(subscription)
        chosen = [each for each in found if ids is None or each in set(ids)]

        async def take_out(name: str) -> None:
            await do(found[name])
            await self._send(_dead_name(subscription), name, None, {})

        for start in range(0, len(chosen), 100):
            await asyncio.gather(*map(take_out, chosen[start : start + 100]))
        return len(chosen)

    async def _dead_of(self, subscription: Subscription) -> dict[str, Any]:
        """Return the records of dead messages by name, but those that were taken out."""
        await self._need_all(subscription)
        assert self._consumer is not None
        consumer = self._consumer(enable_auto_commit=False, auto_offset_reset="earliest")
        found: dict[str, Any] = {}
        try:
            await consumer.start()
            partitions = await self._partitions_of(_dead_name(subscription))
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            for each in partitions:
                while await consumer.position(each) < ends[each]:
                    for record in (await consumer.getmany(each, timeout_ms=200)).get(each, ()):
                        name = (record.key or b"").decode()
                        if record.value is None:
                            found.pop(name, None)
                        else:
                            found[name] = record
        finally:
            await consumer.stop()
        return found

    def __repr__(self) -> str:
        return f"<KafkaTransport, {'connected' if self._is_connected else 'not connected'}>"


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


class _Subscribed(Subscribed, ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(
        self, transport: KafkaTransport, subscription: Subscription, handler: Handler
    ) -> None:
        self._transport = transport
        self._subscription = subscription
        self._lanes = Lanes(subscription, handler)
        self._consumer: Any = None
        self._progress: dict[TopicPartition, _Progress] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._later: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._error: str | None = None

    async def start(self) -> None:
        subscription = self._subscription
        await self._transport._need_all(subscription)
        if subscription.mode == "group":
            await self._begin()
        await self._attach()
        title = f"{subscription.group} at Kafka"
        self._tasks = [
            start_background(self._work(), name=f"subscription of {title}"),
            start_background(self._keep_committing(), name=f"positions of {title}"),
        ]
        if subscription.on_connected is not None:
            self._transport._reconnected.append(subscription.on_connected)

    async def _begin(self) -> None:
        """Let a group that is new hear of what happens from now on."""
        partitions = await self._transport._partitions_of(self._subscription.destination)
        assert self._transport._consumer is not None
        consumer = self._transport._consumer(
            group_id=_group_name(self._subscription), enable_auto_commit=False
        )
        try:
            await consumer.start()
            consumer.assign(partitions)
            committed = [await consumer.committed(each) for each in partitions]
            if all(each is None for each in committed):
                with contextlib.suppress(CommitFailedError):  # others of the group were faster
                    await consumer.commit(await consumer.end_offsets(partitions))
        finally:
            await consumer.stop()

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
            group_id=_group_name(subscription),
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
        topics = [subscription.destination, _retry_name(subscription)]
        consumer.subscribe(topics, listener=self)

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
        delay = float(_headers(record).get(_DUE, 0)) - time.time()
        if delay > 0:
            self._wait(partition, record, 1, delay)
        else:
            await self._hand_over(partition, record, 1)

    def _wait(self, partition: TopicPartition, record: Any, deliveries: int, delay: float) -> None:
        async def wait() -> None:
            await asyncio.sleep(delay)
            await self._hand_over(partition, record, deliveries)

        task = start_background(wait(), name=f"retry of {self._subscription.group} at Kafka")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _hand_over(self, partition: TopicPartition, record: Any, deliveries: int) -> None:
        message = _incoming(record, self._subscription, deliveries)
        progress = self._progress.get(partition)
        if progress is None or record.offset not in progress.unsettled:
            return  # others of the group have the partition now

        async def settle(disposition: Disposition) -> None:
            if self._subscription.mode == "broadcast" and isinstance(disposition, Retry):
                self._wait(partition, record, deliveries + 1, disposition.delay)
                return
            await self._move(record, message, disposition)
            progress.unsettled.discard(record.offset)
            self._changed.set()

        await self._lanes.put(message, settle)

    async def _move(self, record: Any, message: IncomingMessage, disposition: Disposition) -> None:
        if isinstance(disposition, Ack) or self._subscription.mode == "broadcast":
            return
        topic, key = _retry_name(self._subscription), message.key
        headers = _headers(record) | {_DELIVERIES: str(message.deliveries)}
        headers.pop(_DUE, None)
        if message.key is not None:
            headers[_KEY] = message.key
        if isinstance(disposition, DeadLetter):
            topic, key = _dead_name(self._subscription), secrets.token_hex(8)
            headers[_REASON] = disposition.reason[:4000]
            headers[_ERROR] = disposition.error
            headers[_DIED_AT] = str(time.time())
        else:
            headers[_DUE] = str(time.time() + disposition.delay)
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

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Let handlers end before others get the partitions."""
        ours = [self._progress[each] for each in revoked if each in self._progress]
        deadline = time.monotonic() + _REVOKE_SECONDS
        while any(each.unsettled for each in ours) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        with contextlib.suppress(Exception):  # then they come again, to whoever gets them
            await self._commit()
        for each in revoked:
            self._progress.pop(each, None)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Start where the group is."""
        for each in assigned:
            self._progress.pop(each, None)

    async def aclose(self, drain: float = 30.0) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        callback = self._subscription.on_connected
        if callback in self._transport._reconnected:
            self._transport._reconnected.remove(callback)
        for task in self._tasks[:1]:
            await _end(task)
        await self._lanes.aclose(drain)
        for task in (*self._tasks[1:], *self._later):
            await _end(task)
        with contextlib.suppress(Exception):  # they come again
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._commit()
        self._progress.clear()
        await self._detach()

    def health(self) -> dict[str, Any]:
        connected = self._transport._is_connected
        return {
            "in_flight": self._lanes.in_flight,
            "lag": self._lag(),
            "error": self._error or (None if connected else "Kafka is not connected."),
        }

    def _lag(self) -> int:
        consumer = self._consumer
        if consumer is None:
            return 0
        ends = {each: consumer.highwater(each) for each in consumer.assignment()}
        return sum(
            max(0, (ends.get(each) or 0) - (progress.position or 0))
            for each, progress in self._progress.items()
        )


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _probe(servers: Sequence[str]) -> None:
    """See whether anybody listens, before the library makes what it does not close."""
    last: Exception | None = None
    for server in servers:
        host, _, port = server.rpartition(":") if ":" in server else (server, "", "9092")
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError as error:
            last = error
            continue
        writer.close()
        return
    raise last or ConnectionError("no servers are named")


# -- names and messages


def _group_name(subscription: Subscription) -> str:
    # Groups that share a name share rebalances, whatever they read.
    return f"{subscription.destination}.{subscription.group}"


def _retry_name(subscription: Subscription) -> str:
    return f"{subscription.destination}.{subscription.group}.retry"


def _dead_name(subscription: Subscription) -> str:
    return f"{subscription.destination}.{subscription.group}.dead"


def _headers(record: ConsumerRecord) -> dict[str, str]:
    return {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}


def _incoming(record: Any, subscription: Subscription, deliveries: int) -> IncomingMessage:
    attributes, others = split_headers(_headers(record))
    key = others.get(_KEY)
    if key is None and record.key is not None:
        key = record.key.decode("utf-8", "replace")
    return IncomingMessage(
        subscription.destination,
        record.value or b"",
        others.get(_CONTENT_TYPE, ""),
        attributes,
        {name: value for name, value in others.items() if name not in _RESERVED},
        key or attributes.get("partitionkey"),
        int(others.get(_DELIVERIES, 0)) + deliveries,
    )


def _dead(record: Any, subscription: Subscription) -> DeadMessage:
    headers = _headers(record)
    message = _incoming(record, subscription, 0)
    died_at = headers.get(_DIED_AT)
    return DeadMessage(
        record.key.decode(),
        message,
        headers.get(_REASON, ""),
        headers.get(_ERROR, ""),
        float(died_at) if died_at else None,
    )
