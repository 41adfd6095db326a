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
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError
from azure.core.pipeline.transport import RequestsTransport
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.amqp import AmqpMessageBodyType
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusCommunicationError,
    ServiceBusConnectionError,
)
from azure.servicebus.management import ServiceBusAdministrationClient

from afresh.errors import InvalidStateError
from afresh.primitives.tasks import start_background

from ..envelope import split_headers, to_headers
from ..lanes import Lanes, Settle
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

__all__ = ["ServiceBusTransport"]

_log = logging.getLogger("afresh.brokers")

MAX_BYTES = 256_000
"""What the Standard tier takes in a message of 256 KiB, less room for headers."""

LOCK_SECONDS = 60.0
"""For how long a message is locked at a time, in subscriptions that are made here."""

_PORT = 5671
_EMULATOR_PORT = 5300
_CONNECT_SECONDS = 5.0
_SEND_SECONDS = 10.0
_WAIT_SECONDS = 0.2
_LOOK_SECONDS = 0.5
_DEAD_SECONDS = 5.0
_BATCH_BYTES = 200_000
_MOST_DELIVERIES = 2_000
_IDLE = timedelta(minutes=5)
_MOST_TEXT = 4_000
_PEEKED = 250

_DELIVERIES = "x-afresh-deliveries"
_GROUP = "x-afresh-group"
_KEY = "x-afresh-key"
_DEAD = {"DeadLetterReason", "DeadLetterErrorDescription"}
_OWN = {_DELIVERIES, _GROUP, _KEY, *_DEAD}

_UNREACHABLE = (
    ServiceBusConnectionError,
    ServiceBusCommunicationError,
    ServiceBusAuthenticationError,
    OSError,
)
_REFUSED = (MessageSizeExceededError, MessagingEntityNotFoundError, ServiceBusAuthorizationError)


class ServiceBusTransport(Transport):
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

    Example:
        ```python
        app = App(database=…, broker=Broker("Endpoint=sb://…", source="/shop"))
        ```
    """

    def __init__(
        self,
        url: str,
        *,
        credential: Any = None,
        declares: bool = True,
        max_bytes: float = MAX_BYTES,
    ) -> None:
        self.capabilities: Capabilities = Capabilities(
            name="servicebus",
            prefix="cloudEvents:",
            is_durable=True,
            ordered_keys=False,
            deduplicates=0,
            delays_retries=True,
            has_dead_letters=True,
            max_bytes=max_bytes,
        )
        self._place = _Place.read(url)
        self._credential = credential
        self._administration = self._place.administration() if declares else None
        self._client: ServiceBusClient | None = None
        self._senders: dict[str, _Sender] = {}
        self._dead_receivers: dict[tuple[str, str], ServiceBusReceiver] = {}
        self._dead_lock = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._subscribed: set[_Subscribed] = set()
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
        elif isinstance(error, _UNREACHABLE):
            self._error = f"{type(error).__name__}: {error}"

    @property
    def _started(self) -> ServiceBusClient:
        if self._client is None:
            raise InvalidStateError("Start the transport before you use it.")
        return self._client

    def health(self) -> dict[str, Any]:
        return {"connected": self._error is None, "error": self._error}

    async def aclose(self) -> None:
        # The SDK waits for ever for a receiver that is closed while it reads.
        for subscribed in list(self._subscribed):
            await subscribed.aclose(0)
        client, self._client = self._client, None
        self._error = "Azure Service Bus is not connected."
        if client is None:
            return
        opened: list[ServiceBusReceiver | ServiceBusSender] = [*self._dead_receivers.values()]
        opened += [each.sender for each in self._senders.values()]
        self._senders.clear()
        self._dead_receivers.clear()
        await asyncio.gather(*(_close(each) for each in opened), *self._leaving)
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
                lock_duration=timedelta(seconds=LOCK_SECONDS),
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

    async def publish(self, messages: Sequence[OutgoingMessage]) -> Sequence[PublishResult]:
        if self._client is None:
            gone = PublishResult(Outcome.UNAVAILABLE, "Azure Service Bus is not connected.")
            return [gone] * len(messages)
        results: list[PublishResult] = [CONFIRMED] * len(messages)
        topics: dict[str, list[int]] = {}
        for number, message in enumerate(messages):
            if len(message.body) > self.capabilities.max_bytes:
                limit = self.capabilities.max_bytes
                error = f"{len(message.body):,} bytes are more than {limit:,}."
                results[number] = PublishResult(Outcome.PERMANENT, error)
            else:
                topics.setdefault(message.destination, []).append(number)

        async def send(topic: str, numbers: list[int]) -> None:
            for batch in _batches(messages, numbers):
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
            properties[_KEY] = message.key
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
            return PublishResult(_outcome(error), f"{type(error).__name__}: {error}")
        self._note(None)
        return CONFIRMED

    async def _send_again(self, topic: str, message: ServiceBusMessage) -> None:
        result = await self._send(topic, [message])
        if not result.is_confirmed:
            raise ConnectionError(f"Azure Service Bus did not take a copy: {result.error}")

    # -- consuming

    async def subscribe(self, subscription: Subscription, handler: Handler) -> Subscribed:
        if self._client is None:
            raise InvalidStateError("Start the transport before you subscribe.")
        if subscription.mode == "broadcast" and self._administration is None:
            raise ValueError(
                "A broadcast needs a subscription for each host; let the transport make them "
                "(declares=True, and credentials with the right Manage), or use mode='group'."
            )
        subscribed = _Subscribed(self, subscription, handler)
        try:
            await subscribed.start()
        except Exception as error:
            self._note(error)
            raise ConnectionError(f"Azure Service Bus refuses the subscription: {error}") from error
        self._subscribed.add(subscribed)
        return subscribed

    # -- dead messages

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        async with self._dead_of(subscription) as receiver:
            return [_dead(raw, subscription) for raw in await _peek(receiver, limit)]

    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        async def requeue(raw: ServiceBusReceivedMessage) -> None:
            copy = _copy(raw, {_GROUP: _name(subscription.group)})
            await self._send_again(subscription.destination, copy)

        return await self._each_dead(subscription, ids, requeue)

    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        return await self._each_dead(subscription, ids, None)

    async def _each_dead(
        self,
        subscription: Subscription,
        ids: Sequence[str] | None,
        do: Callable[[ServiceBusReceivedMessage], Any] | None,
    ) -> int:
        async with self._dead_of(subscription) as receiver:
            there = {str(raw.sequence_number) for raw in await _peek(receiver, None)}
            wanted = there if ids is None else there & set(ids)
            count = 0
            others: list[ServiceBusReceivedMessage] = []
            while wanted:
                found = await receiver.receive_messages(
                    min(_PEEKED, len(there)), max_wait_time=_DEAD_SECONDS
                )
                for raw in found:
                    name = str(raw.sequence_number)
                    there.discard(name)
                    if ids is not None and name not in wanted:
                        others.append(raw)
                        continue
                    if do is not None:
                        await do(raw)
                    await receiver.complete_message(raw)
                    wanted.discard(name)
                    count += 1
                if not found or not there:
                    break
            for raw in others:
                await receiver.abandon_message(raw)
            return count

    @contextlib.asynccontextmanager
    async def _dead_of(self, subscription: Subscription) -> AsyncIterator[ServiceBusReceiver]:
        """A receiver of dead messages; it is kept, as it takes long to open."""
        key = subscription.destination, _name(subscription.group)
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
                await _close(receiver)
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


@dataclass(slots=True)
class _Held:
    raw: ServiceBusReceivedMessage
    receiver: ServiceBusReceiver
    renew_at: float


class _Subscribed(Subscribed):
    def __init__(
        self, transport: ServiceBusTransport, subscription: Subscription, handler: Handler
    ) -> None:
        self._transport = transport
        self._subscription = subscription
        self._group = _name(subscription.group)
        self._name = self._group
        if subscription.mode == "broadcast":
            self._name = f"{self._group[:36]}-{secrets.token_hex(6)}"
        self._lanes = Lanes(subscription, handler)
        self._receiver: ServiceBusReceiver | None = None
        # Of two that read from a link at once, one gets the answer that the other waits for.
        self._reading = asyncio.Lock()
        self._held: dict[int, _Held] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._error: str | None = None

    async def start(self) -> None:
        try:
            await self._open()
        except BaseException:
            await self._lanes.aclose(0)
            raise
        title = f"{self._subscription.group} at Azure Service Bus"
        self._tasks = [
            start_background(self._receive(), name=f"subscription of {title}"),
            start_background(self._renew(), name=f"renewal of {title}"),
        ]

    async def _open(self) -> ServiceBusReceiver:
        subscription = self._subscription
        await self._transport._need_subscription(subscription, self._name)
        receiver = self._transport._started.get_subscription_receiver(
            subscription.destination, self._name, prefetch_count=subscription.workers
        )
        try:
            await receiver.__aenter__()
        except BaseException:
            await _close(receiver)
            raise
        self._receiver = receiver
        self._transport._note(None)
        return receiver

    async def _receive(self) -> None:
        while not self._is_closing:
            receiver = self._receiver
            try:
                if receiver is None:
                    receiver = await self._open_again()
                async with self._reading:
                    found = await receiver.receive_messages(1, max_wait_time=_WAIT_SECONDS)
                for raw in found:
                    await self._take(raw, receiver)
            except Exception as error:
                self._transport._note(error)
                # The topic may have been deleted meanwhile, with all its subscriptions.
                self._transport._topics.discard(self._subscription.destination)
                self._error = f"{type(error).__name__}: {error}"
                if receiver is not None:
                    self._receiver = None
                    await _close(receiver)
                await asyncio.sleep(_LOOK_SECONDS)

    async def _open_again(self) -> ServiceBusReceiver:
        receiver = await self._open()
        self._error = None
        if self._subscription.on_connected is not None:
            self._subscription.on_connected()
        return receiver

    async def _take(self, raw: ServiceBusReceivedMessage, receiver: ServiceBusReceiver) -> None:
        remaining = _remaining(raw)
        if remaining <= 0:
            return  # it waited here for too long, and comes again
        if _texts(raw).get(_GROUP, self._group) != self._group:
            async with self._reading:
                await receiver.complete_message(raw)  # a copy that is for another group
            return
        held = _Held(raw, receiver, time.monotonic() + remaining / 2)
        self._held[id(held)] = held
        await self._lanes.put(_incoming(raw, self._subscription), self._settling(held))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            for held in [each for each in self._held.values() if each.renew_at <= now]:
                held.renew_at = now + _LOOK_SECONDS
                if held.receiver is self._receiver:
                    # It is tried again, or the message comes again.
                    with contextlib.suppress(Exception):
                        async with self._reading:
                            await held.receiver.renew_message_lock(held.raw, timeout=_SEND_SECONDS)
                        held.renew_at = time.monotonic() + _remaining(held.raw) / 2

    def _settling(self, held: _Held) -> Settle:
        async def settle(disposition: Disposition) -> None:
            del self._held[id(held)]
            raw, receiver = held.raw, held.receiver
            if receiver is not self._receiver:
                raise ConnectionError("the connection was lost that it was received by")
            match disposition:
                case Retry(delay) if delay > 0 and self._subscription.mode == "group":
                    await self._send_later(raw, delay)
                    disposition = Ack()
                case DeadLetter() if self._subscription.mode == "broadcast":
                    disposition = Ack()
            async with self._reading:
                match disposition:
                    case Ack():
                        await receiver.complete_message(raw)
                    case Retry():
                        await receiver.abandon_message(raw)
                    case DeadLetter(reason, error):
                        await receiver.dead_letter_message(
                            raw, reason=reason[:_MOST_TEXT], error_description=error[:_MOST_TEXT]
                        )

        return settle

    async def _send_later(self, raw: ServiceBusReceivedMessage, delay: float) -> None:
        copy = _copy(raw, {_GROUP: self._group, _DELIVERIES: str(_deliveries(raw))})
        copy.scheduled_enqueue_time_utc = datetime.now(UTC) + timedelta(seconds=delay)
        await self._transport._send_again(self._subscription.destination, copy)

    async def aclose(self, drain: float = 30.0) -> None:
        self._transport._subscribed.discard(self)
        if not self._tasks:
            return
        receiving, renewing = self._tasks
        self._tasks = []
        self._is_closing = True
        await self._lanes.aclose(drain)
        # Reading is not cancelled: half a frame would be lost, and what is held settled no more.
        await asyncio.wait([receiving])
        renewing.cancel()
        await asyncio.wait([renewing])
        for held in self._held.values():
            if held.receiver is self._receiver:
                with contextlib.suppress(Exception):  # the lock is lost: it comes again
                    await held.receiver.abandon_message(held.raw)
        self._held.clear()
        self._transport._leave(self._detach())

    async def _detach(self) -> None:
        """Give back what was fetched ahead; the SDK takes a second for that."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            await _close(receiver)
        if self._subscription.mode == "broadcast":
            await self._transport._forget(self._subscription.destination, self._name)

    def health(self) -> dict[str, Any]:
        return {"in_flight": self._lanes.in_flight, "error": self._error}


# -- places and names


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a namespace is, and by which key."""

    host: str
    port: int
    key_name: str
    key: str
    signature: str
    is_emulator: bool
    administration_port: int

    @classmethod
    def read(cls, url: str) -> _Place:
        """Read an address, or a connection string.

        Raises:
            ValueError: it is neither.
        """
        if url.lower().startswith("endpoint="):
            pairs = (each.partition("=") for each in url.split(";") if each)
            fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
            parts = urlsplit(fields["endpoint"])
            key_name = fields.get("sharedaccesskeyname", "")
            key = fields.get("sharedaccesskey", "")
            is_emulator = fields.get("usedevelopmentemulator") == "true"
            administration = None
        else:
            fields = {}
            parts = urlsplit(url)
            options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            key_name, key = unquote(parts.username or ""), unquote(parts.password or "")
            is_emulator = options.get("emulator") == "true"
            administration = options.get("administration")
        if parts.scheme not in {"sb", "servicebus"} or not parts.hostname:
            raise ValueError(
                "Give the connection string of a namespace, Endpoint=sb://…;SharedAccessKeyName=…;"
                "SharedAccessKey=…, or servicebus://key-name:key@namespace.servicebus.windows.net."
            )
        port = (parts.port or 5672) if is_emulator else _PORT
        signature = fields.get("sharedaccesssignature", "")
        administration_port = int(administration or _EMULATOR_PORT)
        return cls(parts.hostname, port, key_name, key, signature, is_emulator, administration_port)

    def _connection_string(self, port: int) -> str:
        host = f"{self.host}:{port}" if self.is_emulator else self.host
        fields = [f"Endpoint=sb://{host}/"]
        if self.signature:
            fields.append(f"SharedAccessSignature={self.signature}")
        else:
            fields += [f"SharedAccessKeyName={self.key_name}", f"SharedAccessKey={self.key}"]
        if self.is_emulator:
            fields.append("UseDevelopmentEmulator=true")
        return ";".join(fields)

    def client(self, credential: Any) -> ServiceBusClient:
        """What messages are sent and received by."""
        if credential is not None:
            return ServiceBusClient(self.host, credential, retry_total=0)
        return ServiceBusClient.from_connection_string(
            self._connection_string(self.port), retry_total=0
        )

    def administration(self) -> ServiceBusAdministrationClient | None:
        """What topics and subscriptions are made by; needs a key."""
        if not self.key and not self.signature:
            return None
        settings: dict[str, Any] = {"transport": _PlainHttp()} if self.is_emulator else {}
        return ServiceBusAdministrationClient.from_connection_string(
            self._connection_string(self.administration_port), **settings
        )


class _PlainHttp(RequestsTransport):  # type: ignore[misc]  # azure.core says nothing of it
    """HTTP without TLS, as the emulator speaks it; the SDK knows https:// only."""

    def send(self, request: Any, **settings: Any) -> Any:
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, **settings)


def _name(group: str) -> str:
    """A name as that of a subscription: 50 letters, digits, dots, hyphens and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", group)[:50]


async def _close(handler: ServiceBusReceiver | ServiceBusSender) -> None:
    with contextlib.suppress(Exception):  # whatever is wrong with it, it is not used any more
        await handler.close()


# -- messages


def _batches(messages: Sequence[OutgoingMessage], numbers: list[int]) -> list[list[int]]:
    """Numbers of messages that are sent at once, in order, of a size that every tier takes."""
    batches: list[list[int]] = []
    size = _BATCH_BYTES
    for number in numbers:
        message = messages[number]
        texts = sum(len(name) + len(value) + 32 for name, value in message.attributes.items())
        texts += sum(len(name) + 4 * len(value) + 32 for name, value in message.headers.items())
        size += len(message.body) + texts + 512
        if size > _BATCH_BYTES:
            batches.append([])
            size = len(message.body) + texts + 512
        batches[-1].append(number)
    return batches


def _outcome(error: Exception) -> Outcome:
    if isinstance(error, _UNREACHABLE):
        return Outcome.UNAVAILABLE
    return Outcome.PERMANENT if isinstance(error, _REFUSED) else Outcome.TRANSIENT


def _remaining(raw: ServiceBusReceivedMessage) -> float:
    """Seconds until the lock expires."""
    until = raw.locked_until_utc
    return LOCK_SECONDS if until is None else (until - datetime.now(UTC)).total_seconds()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _texts(raw: ServiceBusReceivedMessage) -> dict[str, str]:
    given = raw.application_properties or {}
    return {_text(name): _text(value) for name, value in given.items()}


def _body(raw: ServiceBusReceivedMessage) -> bytes:
    if raw.body_type == AmqpMessageBodyType.DATA:
        return b"".join(raw.body)
    return str(raw).encode()


def _deliveries(raw: ServiceBusReceivedMessage) -> int:
    """How often it was handed over, by this copy and those before it."""
    before = _texts(raw).get(_DELIVERIES, "")
    return (int(before) if before.isdecimal() else 0) + (raw.delivery_count or 0) + 1


def _incoming(raw: ServiceBusReceivedMessage, subscription: Subscription) -> IncomingMessage:
    texts = _texts(raw)
    attributes, headers = split_headers(texts)
    return IncomingMessage(
        subscription.destination,
        _body(raw),
        raw.content_type or "",
        attributes,
        {name: value for name, value in headers.items() if name not in _OWN},
        texts.get(_KEY) or raw.session_id or attributes.get("partitionkey"),
        _deliveries(raw),
    )


def _copy(raw: ServiceBusReceivedMessage, properties: dict[str, str]) -> ServiceBusMessage:
    """The message for its group alone; it has another id, or a topic could drop it as known."""
    texts = {name: value for name, value in _texts(raw).items() if name not in _OWN - {_KEY}}
    return ServiceBusMessage(
        _body(raw),
        application_properties=dict[Any, Any](texts | properties),
        message_id=secrets.token_hex(16),
        subject=raw.subject,
        content_type=raw.content_type,
        correlation_id=raw.correlation_id,
        session_id=raw.session_id,
    )


def _dead(raw: ServiceBusReceivedMessage, subscription: Subscription) -> DeadMessage:
    return DeadMessage(
        str(raw.sequence_number),
        _incoming(raw, subscription),
        raw.dead_letter_reason or "",
        raw.dead_letter_error_description or "",
    )


async def _peek(receiver: ServiceBusReceiver, limit: int | None) -> list[ServiceBusReceivedMessage]:
    """Look at the oldest messages, all if there is no limit."""
    found: list[ServiceBusReceivedMessage] = []
    first = 1
    while limit is None or len(found) < limit:
        count = _PEEKED if limit is None else min(_PEEKED, limit - len(found))
        more = await receiver.peek_messages(count, sequence_number=first, timeout=_SEND_SECONDS)
        found += more
        if not more:
            break
        first = (more[-1].sequence_number or first) + 1
    return found
