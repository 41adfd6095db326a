"""Azure Service Bus, by its own SDK: a topic for each destination, a subscription for each group.

Messages are received under a lock, which is renewed while they are handled. One that is to be
handled again later is copied: the copy is scheduled for its time and says which group it is for, as
a topic hands it to all of them. Dead messages lie in the dead-letter queue that every subscription
has. Order per key holds within a host; hosts of a group take messages side by side.

Topics and subscriptions that are missing are made, where the credentials allow that (`Manage`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import MessagingEntityNotFoundError, ServiceBusConnectionError

from afresh.errors import InvalidStateError
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
    Subscribed,
    Subscription,
)
from .base import BaseTransport
from .headers import GROUP, KEY
from .servicebus_messages import (
    UNREACHABLE,
    close,
    copy_of,
    dead_of,
    in_batches,
    name_of,
    outcome_of,
    peek,
    received_size_of,
    size_of,
)
from .servicebus_place import Place
from .servicebus_subscribed import ServiceBusSubscribed

__all__ = ["ServiceBusTransport"]

_log = logging.getLogger("afresh.brokers")

MAX_BYTES = 256_000
"""What the Standard tier takes in a message of 256 KiB, less room for headers."""

LOCK_SECONDS = 60.0
"""For how long a message is locked at a time, in subscriptions that are made here."""

_CONNECT_SECONDS = 5.0
_SEND_SECONDS = 10.0
_DEAD_SECONDS = 5.0
_MOST_DELIVERIES = 2_000
_IDLE = timedelta(minutes=5)
_WINDOW = 250


class ServiceBusTransport(BaseTransport):
    """A connection to a namespace of Azure Service Bus.

    Args:
        url: the connection string that the portal shows, ``Endpoint=sb://…``; or
            ``servicebus://key-name:key@namespace.servicebus.windows.net``, where
            ``?emulator=true`` means Microsoft's emulator, which speaks without TLS, and
            ``&administration=5300`` the port of its management.
        credential: of `azure.identity.aio`, in place of a key.
        declares: whether topics and subscriptions that are missing are made; needs the right
            ``Manage``. Broadcasts need it: each makes a subscription of its own, which the service
            deletes when nobody has used it for five minutes.
        max_bytes: the largest body that the namespace takes; the Premium tier takes more.
        lock: seconds for which a message is locked at a time, in subscriptions that are made here;
            the lock is renewed while the message is handled.

    Example:
        ```python
        app = App(database=…, broker=Broker("Endpoint=sb://…", source="/shop"))
        ```
    """

    title = "Azure Service Bus"

    def __init__(
        self,
        url: str,
        *,
        credential: Any = None,
        declares: bool = True,
        max_bytes: float = MAX_BYTES,
        lock: float = LOCK_SECONDS,
    ) -> None:
        super().__init__(
            Capabilities(
                name="servicebus",
                prefix="cloudEvents:",
                is_durable=True,
                ordered_keys=False,
                deduplicates=0,
                delays_retries=True,
                has_dead_letters=True,
                max_bytes=max_bytes,
            )
        )
        self._place = Place.read(url)
        self._credential = credential
        self._lock = lock
        self._administration = self._place.administration() if declares else None
        self._client: ServiceBusClient | None = None
        self._senders: dict[str, _Sender] = {}
        self._dead_receivers: dict[tuple[str, str], ServiceBusReceiver] = {}
        self._dead_lock = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._topics: set[str] = set()
        self._error: str | None = "Azure Service Bus is not connected."

    # -- the connection

    async def start(self) -> None:
        place = self._place
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(place.host, place.port)
        except OSError as error:  # TimeoutError too
            self._error = f"Azure Service Bus can't be reached: {error}"
            raise ConnectionError(self._error) from error
        writer.close()
        if self._client is None:
            # What is received on a link is settled there: a receiver that opens another link by
            # itself would mix them up, so nothing is tried again within the SDK.
            self._client = place.client(self._credential)
        self._error = None

    def _note(self, error: BaseException | None) -> None:
        """Remember whether the service was there when it was needed last."""
        if error is None:
            self._error = None
        elif isinstance(error, UNREACHABLE):
            self._error = f"{type(error).__name__}: {error}"

    @property
    def _started(self) -> ServiceBusClient:
        if self._client is None:
            raise InvalidStateError("Start the transport before you use it.")
        return self._client

    @property
    def _is_started(self) -> bool:
        return self._client is not None

    @property
    def _is_connected(self) -> bool:
        return self._error is None

    @property
    def _may_publish(self) -> bool:
        return self._is_started  # whether the service is there is seen by trying

    @property
    def _absence(self) -> str | None:
        return self._error

    async def aclose(self) -> None:
        # The SDK waits for ever for a receiver that is closed while it reads.
        await self._close_subscribed()
        client, self._client = self._client, None
        self._error = "Azure Service Bus is not connected."
        if client is None:
            return
        opened: list[ServiceBusReceiver | ServiceBusSender] = [*self._dead_receivers.values()]
        opened += [each.sender for each in self._senders.values()]
        self._senders.clear()
        self._dead_receivers.clear()
        await asyncio.gather(*(close(each) for each in opened), *self._leaving)
        await client.close()

    def _leave(self, ending: Coroutine[Any, Any, None]) -> None:
        """End a subscription meanwhile; `aclose` waits for that."""
        task = start_background(ending, name="end of a subscription at Azure Service Bus")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # -- topics and subscriptions

    async def _need_topic(self, topic: str) -> None:
        if topic in self._topics:
            return
        if self._administration is not None:
            await self._declare(self._administration.create_topic, topic)
        self._topics.add(topic)

    async def _need_subscription(self, subscription: Subscription, name: str) -> None:
        await self._need_topic(subscription.destination)
        if self._administration is not None:
            is_broadcast = subscription.mode == "broadcast"
            await self._declare(
                self._administration.create_subscription,
                subscription.destination,
                name,
                lock_duration=timedelta(seconds=self._lock),
                # How often is for the handler to say.
                max_delivery_count=_MOST_DELIVERIES,
                auto_delete_on_idle=_IDLE if is_broadcast else None,
            )

    async def _declare(self, create: Callable[..., Any], *names: str, **settings: Any) -> None:
        try:
            await asyncio.to_thread(create, *names, **settings)
        except ResourceExistsError:
            return
        except HttpResponseError as error:
            if not isinstance(error, ClientAuthenticationError) and error.status_code != 403:
                raise
            _log.debug("%s is not made here, as that is not allowed: %s", "/".join(names), error)

    async def _forget(self, topic: str, name: str) -> None:
        if self._administration is not None:
            with contextlib.suppress(Exception):  # the service deletes it by itself after a while
                await asyncio.to_thread(self._administration.delete_subscription, topic, name)

    # -- publishing

    async def _publish(self, messages: Sequence[OutgoingMessage]) -> Sequence[PublishResult]:
        results: list[PublishResult] = [CONFIRMED] * len(messages)
        topics: dict[str, list[int]] = {}
        for number, message in enumerate(messages):
            topics.setdefault(message.destination, []).append(number)

        async def send(topic: str, numbers: list[int]) -> None:
            for batch in in_batches(numbers, lambda number: size_of(messages[number])):
                outgoing = [self._outgoing(messages[number]) for number in batch]
                result = await self._send(topic, outgoing)
                if result.outcome is Outcome.PERMANENT and len(batch) > 1:
                    # One of them is refused, and a batch is taken whole or not at all.
                    for number, each in zip(batch, outgoing, strict=True):
                        results[number] = await self._send(topic, [each])
                else:
                    for number in batch:
                        results[number] = result

        await asyncio.gather(*(send(*each) for each in topics.items()))
        return results

    def _outgoing(self, message: OutgoingMessage) -> ServiceBusMessage:
        properties: dict[Any, Any] = {
            **message.headers,
            **to_headers(message.attributes, self.capabilities.prefix),
        }
        if message.key is not None:
            properties[KEY] = message.key
        return ServiceBusMessage(
            message.body,
            application_properties=properties,
            message_id=message.id,
            subject=message.type,
            content_type=message.content_type,
        )

    async def _send(self, topic: str, messages: list[ServiceBusMessage]) -> PublishResult:
        try:
            await self._need_topic(topic)
            sender = self._senders.get(topic)
            if sender is None:
                sender = self._senders[topic] = _Sender(self._started.get_topic_sender(topic))
            await sender.send(messages)
        except Exception as error:
            self._note(error)
            if isinstance(error, MessagingEntityNotFoundError):
                self._topics.discard(topic)  # it was deleted, and may be made again
            return PublishResult(outcome_of(error), f"{type(error).__name__}: {error}")
        self._note(None)
        return CONFIRMED

    async def _send_again(self, topic: str, messages: list[ServiceBusMessage]) -> None:
        result = await self._send(topic, messages)
        if not result.is_confirmed:
            raise ConnectionError(f"Azure Service Bus did not take a copy: {result.error}")

    # -- consuming

    async def subscribe(self, subscription: Subscription, handler: Handler) -> Subscribed:
        if subscription.mode == "broadcast" and self._administration is None:
            raise ValueError(
                "A broadcast needs a subscription for each host; let the transport make them "
                "(declares=True, and credentials with the right Manage), or use mode='group'."
            )
        try:
            return await super().subscribe(subscription, handler)
        except ConnectionError as error:
            self._note(error.__cause__)
            raise

    def _make_subscribed(
        self, subscription: Subscription, handler: Handler
    ) -> ServiceBusSubscribed:
        return ServiceBusSubscribed(self, subscription, handler)

    async def lag(self, subscription: Subscription) -> int | None:
        return await self._waiting(subscription.destination, name_of(subscription.group))

    async def _waiting(self, topic: str, name: str) -> int | None:
        if self._administration is None:
            return None
        try:
            found = await asyncio.to_thread(
                self._administration.get_subscription_runtime_properties, topic, name
            )
        except (ResourceNotFoundError, ClientAuthenticationError):
            return None
        return found.active_message_count

    # -- dead messages

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        async with self._dead_of(subscription) as receiver:
            return [dead_of(raw, subscription) for raw in await peek(receiver, limit)]

    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        async def requeue(chosen: list[ServiceBusReceivedMessage]) -> None:
            group = {GROUP: name_of(subscription.group)}
            copies = [copy_of(raw, group) for raw in chosen]
            await self._send_again(subscription.destination, copies)

        return await self._each_dead(subscription, ids, requeue)

    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        return await self._each_dead(subscription, ids, None)

    async def _each_dead(
        self,
        subscription: Subscription,
        ids: Sequence[str] | None,
        do: Callable[[list[ServiceBusReceivedMessage]], Awaitable[None]] | None,
    ) -> int:
        async with self._dead_of(subscription) as receiver:
            there = {str(raw.sequence_number) for raw in await peek(receiver, None)}
            wanted = there if ids is None else there & set(ids)
            chosen_of = wanted.copy()
            count = 0
            others: list[ServiceBusReceivedMessage] = []
            while wanted:
                found = await receiver.receive_messages(
                    min(_WINDOW, len(there)), max_wait_time=_DEAD_SECONDS
                )
                names = [str(raw.sequence_number) for raw in found]
                there = there.difference(names)
                wanted = wanted.difference(names)
                others += [
                    raw for raw, name in zip(found, names, strict=True) if name not in chosen_of
                ]
                chosen = [raw for raw, name in zip(found, names, strict=True) if name in chosen_of]
                for batch in in_batches(chosen, received_size_of):
                    if do is not None:
                        await do(batch)
                    for raw in batch:
                        await receiver.complete_message(raw)
                    count += len(batch)
                if not found or not there:
                    break
            for raw in others:
                await receiver.abandon_message(raw)
            return count

    @contextlib.asynccontextmanager
    async def _dead_of(self, subscription: Subscription) -> AsyncIterator[ServiceBusReceiver]:
        """A receiver of dead messages; it is kept, as it takes long to open."""
        key = subscription.destination, name_of(subscription.group)
        async with self._dead_lock:
            receiver = self._dead_receivers.get(key)
            if receiver is None:
                receiver = self._started.get_subscription_receiver(
                    *key, sub_queue=ServiceBusSubQueue.DEAD_LETTER
                )
                await self._need_subscription(subscription, key[1])
            try:
                yield receiver
            except BaseException:
                self._dead_receivers.pop(key, None)
                await close(receiver)
                raise
            self._dead_receivers[key] = receiver

    def __repr__(self) -> str:
        return f"<ServiceBusTransport to {self._place.host}>"


class _Sender:
    """Sends to a topic, one batch after another."""

    def __init__(self, sender: ServiceBusSender) -> None:
        self.sender: ServiceBusSender = sender
        self._lock = asyncio.Lock()

    async def send(self, messages: list[ServiceBusMessage]) -> None:
        async with self._lock:
            try:
                await self.sender.send_messages(_whole(messages), timeout=_SEND_SECONDS)
            except ServiceBusConnectionError:
                # The service detaches links that were idle; this opens another.
                await self.sender.send_messages(_whole(messages), timeout=_SEND_SECONDS)


def _whole(messages: list[ServiceBusMessage]) -> Any:
    return messages if len(messages) > 1 else messages[0]
