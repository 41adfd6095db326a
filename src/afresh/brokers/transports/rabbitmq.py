"""RabbitMQ, by FastStream: a topic exchange for each destination, a quorum queue for each group.

What is to be handled again later waits in a queue whose messages expire back into that of the
group; dead messages go into a queue of their own. All of them are durable, and are declared when
somebody subscribes. A group has one active consumer at a time if it is ordered, as RabbitMQ itself
keeps no order between consumers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError, PublishError
from faststream import AckPolicy
from faststream.rabbit import (
    Channel,
    ExchangeType,
    QueueType,
    RabbitBroker,
    RabbitExchange,
    RabbitMessage,
    RabbitQueue,
)

from afresh.errors import InvalidStateError

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

__all__ = ["RabbitTransport"]

_log = logging.getLogger("afresh.brokers")

TIERS = (1, 5, 30, 120, 600)
"""Seconds that messages may wait before they are handled again; a delay is rounded up to one."""

MAX_BYTES = 16_777_216
"""What newer servers take unless they are told otherwise."""

_CONNECT_SECONDS = 10.0
_DELIVERIES = "x-afresh-deliveries"
_REASON = "x-afresh-reason"
_ERROR = "x-afresh-error"
_DIED_AT = "x-afresh-died-at"
_DEAD_ID = "x-afresh-dead-id"
_DESTINATION = "x-afresh-destination"
_KEY = "x-afresh-key"


class RabbitTransport(Transport):
    """A connection to RabbitMQ.

    Args:
        url: ``amqp://user:password@host:5672/virtual-host``.
        broker: a `faststream.rabbit.RabbitBroker` in place of the address; it stays yours, with its
            subscribers: start and stop it.
        max_bytes: the largest body that the server takes.

    Example:
        ```python
        app = App(database=…, broker=Broker("amqp://guest:guest@localhost", source="/shop"))
        ```
    """

    def __init__(
        self,
        url: str = "amqp://guest:guest@localhost:5672/",
        *,
        broker: RabbitBroker | None = None,
        max_bytes: float = MAX_BYTES,
    ) -> None:
        self.capabilities: Capabilities = Capabilities(
            name="rabbitmq",
            prefix="ce-",
            is_durable=True,
            ordered_keys=True,
            deduplicates=0,
            delays_retries=True,
            has_dead_letters=True,
            max_bytes=max_bytes,
        )
        self._is_owned = broker is None
        self._broker: RabbitBroker = broker or RabbitBroker(
            url,
            default_channel=Channel(publisher_confirms=True, on_return_raises=True),
            timeout=_CONNECT_SECONDS,
            logger=None,
            apply_types=False,
        )
        self._connection: Any = None
        self._channel: Any = None
        self._exchanges: dict[str, Any] = {}
        self._reconnected: list[Callable[[], object]] = []

    # -- the connection

    async def start(self) -> None:
        if self._connection is not None and not self._connection.is_closed:
            if not self._is_connected:
                raise ConnectionError("RabbitMQ can't be reached; it is tried again.")
            return
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection: Any = await self._broker.connect()
                self._channel = await connection.channel(
                    publisher_confirms=True, on_return_raises=True
                )
        except Exception as error:
            raise ConnectionError(f"RabbitMQ can't be reached: {error}") from error
        self._connection = connection
        self._exchanges.clear()
        connection.reconnect_callbacks.add(self._note_reconnected)

    def _note_reconnected(self, *_: Any) -> None:
        for function in list(self._reconnected):
            function()

    @property
    def _is_connected(self) -> bool:
        connection = self._connection
        return connection is not None and connection.connected.is_set()

    def health(self) -> dict[str, Any]:
        return {
            "connected": self._is_connected,
            "error": None if self._is_connected else "RabbitMQ is not connected.",
        }

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.reconnect_callbacks.discard(self._note_reconnected)
        if self._is_owned:
            await self._broker.stop()
        elif self._channel is not None:
            await self._channel.close()

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
            return PublishResult(Outcome.UNAVAILABLE, "RabbitMQ is not connected.")
        if len(message.body) > self.capabilities.max_bytes:
            error = f"{len(message.body):,} bytes are more than {self.capabilities.max_bytes:,}."
            return PublishResult(Outcome.PERMANENT, error)
        headers: dict[str, Any] = {
            **message.headers,
            **to_headers(message.attributes, self.capabilities.prefix),
            _DESTINATION: message.destination,
        }
        if message.key is not None:
            headers[_KEY] = message.key
        try:
            exchange = await self._exchange(message.destination)
            await exchange.publish(
                aio_pika.Message(
                    message.body,
                    headers=headers,
                    content_type=message.content_type,
                    message_id=message.id,
                    type=message.type,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                ),
                routing_key=message.type,
                mandatory=True,
            )
        except PublishError as error:
            return PublishResult(Outcome.PERMANENT, f"No queue is bound: {error}")
        except DeliveryError as error:
            return PublishResult(Outcome.TRANSIENT, f"RabbitMQ refused it: {error}")
        except Exception as error:
            self._exchanges.clear()
            there = self._is_connected and not isinstance(error, ConnectionError)
            outcome = Outcome.TRANSIENT if there else Outcome.UNAVAILABLE
            return PublishResult(outcome, f"{type(error).__name__}: {error}")
        return CONFIRMED

    async def _exchange(self, destination: str) -> Any:
        exchange = self._exchanges.get(destination)
        if exchange is None:
            exchange = self._exchanges[destination] = await self._channel.declare_exchange(
                destination, aio_pika.ExchangeType.TOPIC, durable=True
            )
        return exchange

    # -- consuming

    async def subscribe(self, subscription: Subscription, handler: Handler) -> Subscribed:
        if self._connection is None:
            raise InvalidStateError("Start the transport before you subscribe.")
        subscribed = _Subscribed(self, subscription, handler)
        try:
            await subscribed.start()
        except Exception as error:
            raise ConnectionError(f"RabbitMQ refuses the subscription: {error}") from error
        return subscribed

    # -- dead messages

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        async with self._connection.channel() as channel:  # what is not settled goes back
            queue = await _declare_dead(channel, subscription)
            found: list[DeadMessage] = []
            while len(found) < limit:
                raw = await queue.get(fail=False, no_ack=False)
                if raw is None:
                    break
                found.append(_dead(raw))
        return found

    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        async with self._connection.channel(on_return_raises=True) as channel:

            async def requeue(raw: AbstractIncomingMessage) -> None:
                headers = {
                    name: value
                    for name, value in raw.headers.items()
                    if name not in {_DELIVERIES, _REASON, _ERROR, _DIED_AT, _DEAD_ID}
                }
                await channel.default_exchange.publish(
                    _copy(raw, headers), routing_key=_queue_name(subscription), mandatory=True
                )
                await raw.ack()

            return await self._each_dead(channel, subscription, ids, requeue)

    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        async with self._connection.channel() as channel:
            return await self._each_dead(channel, subscription, ids, lambda raw: raw.ack())

    async def _each_dead(
        self,
        channel: Any,
        subscription: Subscription,
        ids: Sequence[str] | None,
        settle: Callable[[AbstractIncomingMessage], Any],
    ) -> int:
        wanted = None if ids is None else set(ids)
        queue = await _declare_dead(channel, subscription)
        remaining = queue.declaration_result.message_count or 0
        count = 0
        while remaining and (wanted is None or wanted):
            remaining -= 1
            raw = await queue.get(fail=False, no_ack=False)
            if raw is None:
                break
            name = str(raw.headers.get(_DEAD_ID))
            if wanted is None or name in wanted:
                await settle(raw)
                count += 1
                if wanted is not None:
                    wanted.discard(name)
        return count

    def __repr__(self) -> str:
        return f"<RabbitTransport, {'connected' if self._is_connected else 'not connected'}>"


class _Subscribed(Subscribed):
    def __init__(
        self, transport: RabbitTransport, subscription: Subscription, handler: Handler
    ) -> None:
        self._transport = transport
        self._subscription = subscription
        self._lanes = Lanes(subscription, handler)
        self._subscriber: Any = None
        self._channel: Any = None
        self._held: set[AbstractIncomingMessage] = set()

    async def start(self) -> None:
        subscription = self._subscription
        transport = self._transport
        self._channel = await transport._connection.channel(
            publisher_confirms=True, on_return_raises=True
        )
        if subscription.mode == "group":
            await self._declare()
        queue: RabbitQueue
        if subscription.mode == "group":
            arguments: Any = {"x-single-active-consumer": True} if subscription.ordered else {}
            queue = RabbitQueue(
                _queue_name(subscription),
                queue_type=QueueType.QUORUM,
                arguments=arguments,
                routing_key="#",
            )
        else:
            queue = RabbitQueue(
                f"{_queue_name(subscription)}.{secrets.token_hex(8)}",
                exclusive=True,
                auto_delete=True,
                routing_key="#",
            )
        self._subscriber = transport._broker.subscriber(
            queue,
            RabbitExchange(subscription.destination, type=ExchangeType.TOPIC, durable=True),
            channel=Channel(prefetch_count=subscription.fetched),
            ack_policy=AckPolicy.MANUAL,
            decoder=_as_it_is,
            persistent=False,
        )
        self._subscriber(self._take)
        await self._subscriber.start()
        if subscription.on_connected is not None:
            transport._reconnected.append(subscription.on_connected)

    async def _declare(self) -> None:
        subscription = self._subscription
        name = _queue_name(subscription)
        await _declare_dead(self._channel, subscription)
        for seconds in TIERS:
            await self._channel.declare_queue(
                f"{name}.retry.{seconds}",
                durable=True,
                arguments={
                    "x-message-ttl": seconds * 1000,
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": name,
                },
            )

    async def _take(self, message: RabbitMessage) -> None:
        raw: Any = message.raw_message
        self._held.add(raw)
        await self._lanes.put(_incoming(raw, self._subscription), self._settling(raw))

    def _settling(self, raw: AbstractIncomingMessage) -> Any:
        async def settle(disposition: Disposition) -> None:
            self._held.discard(raw)
            match disposition:
                case Ack():
                    await raw.ack()
                case Retry(delay):
                    if self._subscription.mode == "broadcast" or delay <= 0:
                        await raw.nack(requeue=True)
                        return
                    tier = next((each for each in TIERS if each >= delay), TIERS[-1])
                    headers = {**raw.headers, _DELIVERIES: _deliveries(raw)}
                    await self._move(raw, headers, f".retry.{tier}")
                case DeadLetter(reason, error):
                    if self._subscription.mode == "broadcast":
                        await raw.ack()
                        return
                    headers = {
                        **raw.headers,
                        _REASON: reason[:4000],
                        _ERROR: error,
                        _DIED_AT: str(time.time()),
                        _DEAD_ID: secrets.token_hex(8),
                        _DELIVERIES: _deliveries(raw),
                    }
                    await self._move(raw, headers, ".dead")

        return settle

    async def _move(self, raw: AbstractIncomingMessage, headers: Any, to: str) -> None:
        await self._channel.default_exchange.publish(
            _copy(raw, headers), routing_key=_queue_name(self._subscription) + to, mandatory=True
        )
        await raw.ack()

    async def aclose(self, drain: float = 30.0) -> None:
        callback = self._subscription.on_connected
        if callback in self._transport._reconnected:
            self._transport._reconnected.remove(callback)
        subscriber, self._subscriber = self._subscriber, None
        if subscriber is None:
            return
        queue: Any = subscriber._queue_obj
        tag: Any = subscriber._consumer_tag
        if queue is not None and tag is not None and not queue.channel.is_closed:
            await queue.cancel(tag)
            subscriber._consumer_tag = None
        await self._lanes.aclose(drain)
        for raw in sorted(self._held, key=lambda each: each.delivery_tag or 0):
            with contextlib.suppress(Exception):  # the connection is gone, and it goes back too
                await raw.nack(requeue=True)
        self._held.clear()
        await subscriber.stop()
        if not self._channel.is_closed:
            await self._channel.close()

    def health(self) -> dict[str, Any]:
        connected = self._transport._is_connected
        return {
            "in_flight": self._lanes.in_flight,
            "error": None if connected else "RabbitMQ is not connected.",
        }


async def _as_it_is(message: RabbitMessage) -> RabbitMessage:
    """Hands over the message itself, and not what FastStream makes of its body."""
    return message


# -- names and messages


def _queue_name(subscription: Subscription) -> str:
    return f"{subscription.destination}.{subscription.group}"


async def _declare_dead(channel: Any, subscription: Subscription) -> Any:
    return await channel.declare_queue(f"{_queue_name(subscription)}.dead", durable=True)


def _deliveries(raw: AbstractIncomingMessage) -> int:
    before = raw.headers.get(_DELIVERIES) or 0
    again = raw.headers.get("x-delivery-count") or 0
    return int(str(before)) + int(str(again)) + 1


def _incoming(raw: AbstractIncomingMessage, subscription: Subscription) -> IncomingMessage:
    attributes, headers = split_headers(raw.headers)
    return IncomingMessage(
        subscription.destination,
        raw.body,
        raw.content_type or "",
        attributes,
        {name: value for name, value in headers.items() if name not in _RESERVED},
        headers.get(_KEY) or attributes.get("partitionkey"),
        _deliveries(raw),
    )


_RESERVED = {
    _DELIVERIES,
    _REASON,
    _ERROR,
    _DIED_AT,
    _DEAD_ID,
    _DESTINATION,
    _KEY,
    "x-delivery-count",
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
}


def _copy(raw: AbstractIncomingMessage, headers: Any) -> aio_pika.Message:
    kept = {name: value for name, value in headers.items() if name != "x-delivery-count"}
    return aio_pika.Message(
        raw.body,
        headers=kept,
        content_type=raw.content_type,
        message_id=raw.message_id,
        type=raw.type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def _dead(raw: AbstractIncomingMessage) -> DeadMessage:
    headers = raw.headers
    destination = str(headers.get(_DESTINATION) or "")
    died_at = headers.get(_DIED_AT)
    return DeadMessage(
        str(headers.get(_DEAD_ID)),
        _incoming(raw, Subscription(destination, "")),
        str(headers.get(_REASON) or ""),
        str(headers.get(_ERROR) or ""),
        float(str(died_at)) if died_at else None,
    )
