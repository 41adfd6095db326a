"""RabbitMQ, by FastStream: a topic exchange for each destination, a quorum queue for each group.

What is to be handled again later waits in a queue whose messages expire back into that of the
group; dead messages go into a queue of their own. These are declared when somebody subscribes; all
but the last are quorum queues. A group has one active consumer at a time if it is ordered, as
RabbitMQ itself keeps no order between consumers.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError
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

from afresh.primitives.clock import current_clock

from ..envelope import to_headers
from ..lanes import Settle
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
    Subscription,
)
from .base import BaseSubscribed, BaseTransport, end
from .headers import (
    DEAD_ID,
    DELIVERIES,
    DESTINATION,
    KEY,
    OF_DEATH,
    dead_message,
    death_headers,
    incoming_message,
    number_in,
)

__all__ = ["RabbitTransport"]

TIERS = (1, 5, 30, 120, 600)
"""Seconds that messages may wait before they are handled again; a delay is rounded up to one."""

MAX_BYTES = 16_777_216
"""What newer servers take unless they are told otherwise."""

_CONNECT_SECONDS = 10.0
_FETCH_SECONDS = 2.0
_MOST_DELIVERIES = 1_000_000  # how often is for the handler to say; newer servers have a limit
_WINDOW = 250
_MOST_HELD = 65_535
_AGAIN_SECONDS = 1.0
_OF_BROKER = {
    "x-acquired-count",
    "x-delivery-count",
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
}
"""Headers that the server writes."""


class RabbitTransport(BaseTransport):
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

    title = "RabbitMQ"

    def __init__(
        self,
        url: str = "amqp://guest:guest@localhost:5672/",
        *,
        broker: RabbitBroker | None = None,
        max_bytes: float = MAX_BYTES,
    ) -> None:
        super().__init__(
            Capabilities(
                name="rabbitmq",
                prefix="ce-",
                is_durable=True,
                ordered_keys=True,
                deduplicates=0,
                delays_retries=True,
                has_dead_letters=True,
                max_bytes=max_bytes,
            )
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
        connection.reconnect_callbacks.add(self._tell_reconnected)

    @property
    def _is_started(self) -> bool:
        return self._connection is not None

    @property
    def _is_connected(self) -> bool:
        connection = self._connection
        return connection is not None and connection.connected.is_set()

    async def aclose(self) -> None:
        await self._close_subscribed()
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.reconnect_callbacks.discard(self._tell_reconnected)
        if self._is_owned:
            await self._broker.stop()
        elif self._channel is not None:
            await self._channel.close()

    # -- publishing

    async def _publish_one(self, message: OutgoingMessage) -> PublishResult:
        headers: dict[str, Any] = {
            **message.headers,
            **to_headers(message.attributes, self.capabilities.prefix),
            DESTINATION: message.destination,
        }
        if message.key is not None:
            headers[KEY] = message.key
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

    def _make_subscribed(self, subscription: Subscription, handler: Handler) -> _Subscribed:
        return _Subscribed(self, subscription, handler)

    async def lag(self, subscription: Subscription) -> int | None:
        name = _queue_name(subscription)
        queues = [name, *(f"{name}.retry.{seconds}" for seconds in TIERS)]
        try:
            return await self._count(*queues)
        except ChannelNotFoundEntity:
            return None

    async def _count(self, *queues: str) -> int:
        async with self._connection.channel() as channel:
            declared = [await channel.declare_queue(name, passive=True) for name in queues]
        return sum(each.declaration_result.message_count or 0 for each in declared)

    # -- dead messages

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        async with self._connection.channel() as channel:  # what is not settled goes back
            queue = await _declare_dead(channel, subscription)
            count = min(limit, queue.declaration_result.message_count or 0, _MOST_HELD)
            async with contextlib.aclosing(_fetched(channel, queue, count, count)) as found:
                return [_dead(raw, subscription) async for raw in found]

    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        async with self._connection.channel(on_return_raises=True) as channel:

            async def requeue(raw: AbstractIncomingMessage) -> None:
                headers = {name: raw.headers[name] for name in raw.headers.keys() - OF_DEATH}
                await channel.default_exchange.publish(
                    _copy(raw, headers), routing_key=_queue_name(subscription), mandatory=True
                )

            return await self._each_dead(channel, subscription, ids, requeue)

    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        async with self._connection.channel() as channel:
            return await self._each_dead(channel, subscription, ids, None)

    async def _each_dead(
        self,
        channel: Any,
        subscription: Subscription,
        ids: Sequence[str] | None,
        do: Callable[[AbstractIncomingMessage], Awaitable[None]] | None,
    ) -> int:
        wanted = None if ids is None else set(ids)
        queue = await _declare_dead(channel, subscription)
        there = queue.declaration_result.message_count or 0
        # Those that are not wanted are held until the channel is closed.
        ahead = 2 * _WINDOW if wanted is None else min(there, _MOST_HELD)
        most = there if wanted is None else ahead
        count = 0
        chosen: list[AbstractIncomingMessage] = []

        async def settle() -> None:
            if do is not None:
                await asyncio.gather(*map(do, chosen))
            if chosen and wanted is None:
                await chosen[-1].ack(multiple=True)
            else:
                await asyncio.gather(*(raw.ack() for raw in chosen))
            chosen.clear()

        async with contextlib.aclosing(_fetched(channel, queue, most, ahead)) as found:
            async for raw in found:
                if wanted is not None and raw.headers.get(DEAD_ID) not in wanted:
                    continue
                chosen.append(raw)
                count += 1
                if len(chosen) == _WINDOW:
                    await settle()
                if wanted is not None and count == len(wanted):
                    break
            await settle()
        return count


class _Subscribed(BaseSubscribed[RabbitTransport]):
    def __init__(
        self, transport: RabbitTransport, subscription: Subscription, handler: Handler
    ) -> None:
        super().__init__(transport, subscription, handler)
        self._subscriber: Any = None
        self._channel: Any = None

    async def start(self) -> None:
        subscription = self._subscription
        transport = self._transport
        self._channel = await transport._connection.channel(
            publisher_confirms=True, on_return_raises=True
        )
        if subscription.mode == "group":
            await self._declare()
        queue: _Queue
        if subscription.mode == "group":
            arguments: Any = {"x-delivery-limit": _MOST_DELIVERIES}
            if subscription.ordered:
                arguments["x-single-active-consumer"] = True
            queue = _Queue(
                _queue_name(subscription),
                queue_type=QueueType.QUORUM,
                arguments=arguments,
                routing_key="#",
            )
        else:
            queue = _Queue(
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

    async def _declare(self) -> None:
        subscription = self._subscription
        name = _queue_name(subscription)
        await _declare_dead(self._channel, subscription)
        for seconds in TIERS:
            await self._channel.declare_queue(
                f"{name}.retry.{seconds}",
                durable=True,
                arguments={
                    "x-queue-type": "quorum",
                    "x-message-ttl": seconds * 1000,
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": name,
                    # What expires stays until the queue of the group has confirmed it.
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                },
            )

    async def _take(self, message: RabbitMessage) -> None:
        raw: Any = message.raw_message
        await self._hand_over(raw, _incoming(raw, self._subscription))

    async def _hand_over(self, raw: AbstractIncomingMessage, message: IncomingMessage) -> None:
        await self._lanes.put(message, self._settling(raw, message))

    def _settling(self, raw: AbstractIncomingMessage, message: IncomingMessage) -> Settle:
        async def settle(disposition: Disposition) -> None:
            if isinstance(disposition, Retry) and self._subscription.mode == "broadcast":
                again = replace(message, deliveries=message.deliveries + 1)
                self._wait(disposition.delay, lambda: self._hand_over(raw, again))
                return
            match disposition:
                case Ack():
                    await raw.ack()
                case Retry(delay):
                    if delay <= 0:
                        await raw.nack(requeue=True)
                        return
                    tier = next((each for each in TIERS if each >= delay), TIERS[-1])
                    headers = {**raw.headers, DELIVERIES: _deliveries(raw)}
                    await self._move(raw, headers, f".retry.{tier}")
                case DeadLetter() as death:
                    if self._subscription.mode == "broadcast":
                        await raw.ack()
                        return
                    headers = {
                        **raw.headers,
                        **death_headers(death),
                        DEAD_ID: secrets.token_hex(8),
                        DELIVERIES: _deliveries(raw),
                    }
                    await self._move(raw, headers, ".dead")

        return settle

    async def _move(self, raw: AbstractIncomingMessage, headers: Any, to: str) -> None:
        name = _queue_name(self._subscription) + to
        try:
            await self._channel.default_exchange.publish(
                _copy(raw, headers), routing_key=name, mandatory=True
            )
        except Exception:
            # Not at once, or it would go round and round while there is no such queue.
            await current_clock().sleep(_AGAIN_SECONDS)
            await raw.nack(requeue=True)
            raise
        await raw.ack()

    async def _own_lag(self) -> int | None:
        return await self._transport._count(self._subscriber._queue_obj.name)

    async def _close(self, drain: float) -> None:
        # It consumes until its channel is closed, which gives back what it has not settled, in
        # order. Were it to say before that it ends, another host would be given later messages.
        await self._lanes.aclose(drain)
        await end(*self._later)
        subscriber = self._subscriber
        if subscriber is not None:
            queue: Any = subscriber._queue_obj
            if queue is not None and not queue.channel.is_closed:
                await queue.channel.close()
            await subscriber.stop()
        if self._channel is not None and not self._channel.is_closed:
            await self._channel.close()


class _Queue(RabbitQueue):
    """A queue that is consumed by a channel of its own, which FastStream shares between equals."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


async def _as_it_is(message: RabbitMessage) -> RabbitMessage:
    """Hands over the message itself, and not what FastStream makes of its body."""
    return message


# -- names and messages


def _queue_name(subscription: Subscription) -> str:
    return f"{subscription.destination}.{subscription.group}"


async def _declare_dead(channel: Any, subscription: Subscription) -> Any:
    # Not a quorum queue: that gives back late what was only looked at, so it would not be found.
    return await channel.declare_queue(f"{_queue_name(subscription)}.dead", durable=True)


async def _fetched(
    channel: Any, queue: Any, count: int, ahead: int
) -> AsyncGenerator[AbstractIncomingMessage, None]:
    """The oldest messages of a queue, fetched ahead; those that are not settled go back."""
    if not count:
        return
    await channel.set_qos(prefetch_count=ahead)
    found: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    tag = await queue.consume(found.put)
    try:
        for _ in range(count):
            async with asyncio.timeout(_FETCH_SECONDS):
                raw = await found.get()
            yield raw
    except TimeoutError:
        pass  # somebody else has the rest
    finally:
        if not channel.is_closed:
            await queue.cancel(tag)


def _deliveries(raw: AbstractIncomingMessage) -> int:
    return int(number_in(raw.headers, DELIVERIES) + number_in(raw.headers, "x-delivery-count")) + 1


def _incoming(raw: AbstractIncomingMessage, subscription: Subscription) -> IncomingMessage:
    headers = {name: raw.headers[name] for name in raw.headers if name not in _OF_BROKER}
    return incoming_message(
        subscription,
        raw.body,
        headers,
        _deliveries(raw) - int(number_in(headers, DELIVERIES)),
        content_type=raw.content_type or "",
    )


def _copy(raw: AbstractIncomingMessage, headers: Any) -> aio_pika.Message:
    kept = {name: value for name, value in headers.items() if name not in _OF_BROKER}
    return aio_pika.Message(
        raw.body,
        headers=kept,
        content_type=raw.content_type,
        message_id=raw.message_id,
        type=raw.type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def _dead(raw: AbstractIncomingMessage, subscription: Subscription) -> DeadMessage:
    message = _incoming(raw, subscription)
    return dead_message(str(raw.headers.get(DEAD_ID)), message, raw.headers)
