"""Kafka, by FastStream and aiokafka: a topic for each destination, a consumer group for each group.

Records of a key are in one partition, and handled one after another; the position that a group
commits stays behind the oldest record that is not settled. What is to be handled again later goes
into a topic that its group alone reads, as do dead messages that are requeued; dead messages are
kept in a compacted topic of their own, by a name each, so that one can be taken out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import NewTopic  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
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
from faststream.kafka import KafkaBroker

from afresh.primitives.tasks import start_background

from ..envelope import to_headers
from ..transport import (
    CONFIRMED,
    Capabilities,
    DeadMessage,
    Handler,
    Outcome,
    OutgoingMessage,
    PublishResult,
    Subscription,
)
from .base import BaseTransport, end
from .headers import CONTENT_TYPE, KEY, OF_DEATH
from .kafka_records import dead_name, dead_record, group_name, headers_of, retry_name
from .kafka_subscribed import KafkaSubscribed

__all__ = ["KafkaTransport"]

MAX_BYTES = 1_000_000
"""What brokers take unless they are told otherwise, less room for headers."""

_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_ROOM = 48_576  # for headers

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


class KafkaTransport(BaseTransport):
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
        replicas: on how many brokers a topic is kept, when it is made here; 3 in a cluster, for a
            message to outlive a broker.

    Example:
        ```python
        app = App(database=…, broker=Broker("kafka://localhost:9092", source="/shop"))
        ```
    """

    title = "Kafka"

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
        super().__init__(
            Capabilities(
                name="kafka",
                prefix="ce_",
                is_durable=True,
                ordered_keys=True,
                deduplicates=0,
                delays_retries=True,
                has_dead_letters=True,
                max_bytes=max_bytes,
            )
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
        self._answers_now = False
        self._watch: asyncio.Task[None] | None = None
        self._topics: set[str] = set()

    # -- the connection

    @property
    def _is_started(self) -> bool:
        return self._consumer is not None

    @property
    def _is_connected(self) -> bool:
        return self._answers_now

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
        self._answers_now = True
        self._watch = start_background(self._keep_looking(), name="connection to Kafka")

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._look()

    async def _look(self) -> bool:
        """Whether the brokers answer; subscriptions hear of it when they do again."""
        did_answer = self._answers_now
        self._answers_now = await self._answers()
        if self._answers_now and not did_answer:
            self._tell_reconnected()
        return self._answers_now

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._broker.config.admin_client.find_coordinator("afresh")
        except _AWAY:
            return False
        except Exception:  # a broker said so
            return True
        return True

    async def aclose(self) -> None:
        await self._close_subscribed()
        self._answers_now = False
        watch, self._watch = self._watch, None
        if watch is None:
            return
        await end(watch)
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
            await self._need(retry_name(subscription), self._partitions, {})
            await self._need(dead_name(subscription), 1, {"cleanup.policy": "compact"})

    async def _look_for(self, topic: str) -> list[TopicPartition]:
        """Return the partitions of a topic; none if there is no such topic."""
        numbers = [
            each["partition"]
            for found in await self._broker.config.admin_client.describe_topics([topic])
            for each in found["partitions"]
        ]
        return [TopicPartition(topic, number) for number in sorted(numbers)]

    async def _partitions_of(self, topic: str) -> list[TopicPartition]:
        """Return the partitions of a topic that was made; brokers take their time."""
        deadline = time.monotonic() + _REQUEST_SECONDS
        while not (found := await self._look_for(topic)):
            if time.monotonic() > deadline:
                raise ConnectionError(
                    f"Kafka has no topic {topic!r}, and none could be made: create it."
                )
            await asyncio.sleep(0.05)
        return found

    # -- publishing

    async def _publish_one(self, message: OutgoingMessage) -> PublishResult:
        headers = {
            **message.headers,
            **to_headers(message.attributes, self.capabilities.prefix),
            CONTENT_TYPE: message.content_type,
        }
        try:
            await self._need(message.destination, self._partitions, {})
            await self._send(message.destination, message.key, message.body, headers)
        except _REFUSED as error:
            self._topics.discard(message.destination)
            return PublishResult(Outcome.PERMANENT, f"{type(error).__name__}: {error}")
        except Exception as error:
            if isinstance(error, _AWAY):
                self._answers_now = False
            outcome = Outcome.TRANSIENT if self._answers_now else Outcome.UNAVAILABLE
            return PublishResult(outcome, f"{type(error).__name__}: {error}")
        return CONFIRMED

    async def _send(
        self, topic: str, key: str | None, body: bytes | None, headers: dict[str, str]
    ) -> None:
        await self._broker.publish(
            body, topic, key=None if key is None else key.encode(), headers=headers
        )

    # -- consuming

    def _make_subscribed(self, subscription: Subscription, handler: Handler) -> KafkaSubscribed:
        return KafkaSubscribed(self, subscription, handler)

    async def lag(self, subscription: Subscription) -> int | None:
        topics = subscription.destination, retry_name(subscription)
        partitions = [each for topic in topics for each in await self._look_for(topic)]
        async with self._positions(subscription, partitions) as consumer:
            committed = {each: await consumer.committed(each) for each in partitions}
            if all(each is None for each in committed.values()):
                return None
            ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
            firsts: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
        return sum(
            max(0, ends[each] - max(firsts[each], position or 0))
            for each, position in committed.items()
        )

    @contextlib.asynccontextmanager
    async def _positions(
        self, subscription: Subscription, partitions: list[TopicPartition]
    ) -> AsyncIterator[Any]:
        """What tells and sets the positions of a group, without being one of it."""
        assert self._consumer is not None
        consumer = self._consumer(group_id=group_name(subscription), enable_auto_commit=False)
        try:
            await consumer.start()
            consumer.assign(partitions)
            yield consumer
        finally:
            await consumer.stop()

    # -- dead messages

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        found = await self._dead_of(subscription)
        return [dead_record(record, subscription) for record in list(found.values())[:limit]]

    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        async def requeue(record: Any) -> None:
            headers = headers_of(record)
            headers = {name: headers[name] for name in headers.keys() - OF_DEATH}
            await self._send(retry_name(subscription), headers.get(KEY), record.value, headers)

        return await self._each_dead(subscription, ids, requeue)

    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        return await self._each_dead(subscription, ids, None)

    async def _each_dead(
        self,
        subscription: Subscription,
        ids: Sequence[str] | None,
        do: Callable[[Any], Awaitable[None]] | None,
    ) -> int:
        found = await self._dead_of(subscription)
        wanted = None if ids is None else set(ids)
        chosen = [each for each in found if wanted is None or each in wanted]

        async def take_out(name: str) -> None:
            if do is not None:
                await do(found[name])
            await self._send(dead_name(subscription), name, None, {})

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
            partitions = await self._partitions_of(dead_name(subscription))
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            for each in partitions:
                while await consumer.position(each) < max(
                    ends[each], consumer.highwater(each) or 0
                ):
                    for record in (await consumer.getmany(each, timeout_ms=200)).get(each, ()):
                        name = (record.key or b"").decode()
                        if record.value is None:
                            found.pop(name, None)
                        else:
                            found[name] = record
        finally:
            await consumer.stop()
        return found


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
