"""NATS JetStream, by FastStream: a stream for each destination, a durable consumer for each group.

Dead messages go into a stream of their own, and come back by a subject that their group alone
listens to. Order per key holds within a host; consumers of a group on several hosts take messages
side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from faststream.nats import NatsBroker
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StreamConfig
from nats.js.errors import APIError, NotFoundError

from afresh.primitives.tasks import start_background

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
    CONTENT_TYPE,
    DELIVERIES,
    GROUP,
    KEY,
    OF_DEATH,
    dead_message,
    death_headers,
    incoming_message,
)

__all__ = ["NatsTransport"]

MAX_BYTES = 1_000_000
"""What a server takes unless it is told otherwise, less room for headers."""

DUPLICATE_SECONDS = 120.0
WEEK_SECONDS = 7 * 24 * 3600.0
ACK_SECONDS = 30.0
"""A message that is not settled in this time is handed to another host; handlers that take longer
renew it."""

_SUBJECTS = 64
_CONNECT_SECONDS = 5
_PUBLISH_SECONDS = 5.0
_ASK_SECONDS = 10.0
_FETCH_SECONDS = 2.0
_LOOK_SECONDS = 0.5
_ENDED = {"404", "408", "409", "503"}
"""What ends a request for messages: none, no time left, no consumer, nobody there."""

_TOO_LARGE = 10054
_WINDOW = 100


class NatsTransport(BaseTransport):
    """A connection to NATS, with JetStream.

    Args:
        url: ``nats://host:4222``, or ``tls://…``.
        broker: a `faststream.nats.NatsBroker` in place of the address; it stays yours, with its
            subscribers: start and stop it.
        max_bytes: the largest body that the server takes.
        replicas: on how many servers of a cluster a stream is kept, when it is made here; 3 in a
            cluster, for a message to outlive a server.
        max_age: seconds for which a stream that is made here keeps messages, handled or not; a
            group that is away for longer misses them. Dead messages are kept until they are
            requeued or dropped.

    Example:
        ```python
        app = App(database=…, broker=Broker("nats://localhost:4222", source="/shop"))
        ```
    """

    title = "NATS"

    def __init__(
        self,
        url: str = "nats://localhost:4222",
        *,
        broker: NatsBroker | None = None,
        max_bytes: float = MAX_BYTES,
        replicas: int = 1,
        max_age: float = WEEK_SECONDS,
    ) -> None:
        super().__init__(
            Capabilities(
                name="nats",
                prefix="ce-",
                is_durable=True,
                ordered_keys=False,
                deduplicates=DUPLICATE_SECONDS,
                delays_retries=True,
                has_dead_letters=True,
                max_bytes=max_bytes,
            )
        )
        self._is_owned = broker is None
        self._broker: NatsBroker = broker or NatsBroker(
            url,
            logger=None,
            apply_types=False,
            connect_timeout=_CONNECT_SECONDS,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            error_cb=_ignore,
        )
        self._replicas = replicas
        self._max_age = max_age
        self._connection: Any = None
        self._jetstream: Any = None
        self._streams: set[str] = set()

    # -- the connection

    async def start(self) -> None:
        if self._connection is not None and not self._connection.is_closed:
            if not self._connection.is_connected:
                raise ConnectionError("NATS can't be reached; it is tried again.")
            return
        try:
            async with asyncio.timeout(_CONNECT_SECONDS + 1):
                self._connection = await self._broker.connect()
                # Publishing by FastStream needs it started.
                await self._broker.start()
        except Exception as error:
            why = str(error) or type(error).__name__
            raise ConnectionError(f"NATS can't be reached: {why}") from error
        self._jetstream = self._connection.jetstream()
        self._streams.clear()

    @property
    def _is_started(self) -> bool:
        return self._connection is not None

    @property
    def _is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_connected

    async def aclose(self) -> None:
        await self._close_subscribed()
        connection, self._connection = self._connection, None
        if connection is not None and self._is_owned:
            await self._broker.stop()

    # -- streams

    async def _need(self, stream: str, subjects: list[str], max_age: float) -> None:
        """Make a stream, unless it is there."""
        if stream in self._streams:
            return
        try:
            await self._jetstream.stream_info(stream)
        except NotFoundError:
            config = StreamConfig(
                name=stream,
                subjects=subjects,
                retention=RetentionPolicy.LIMITS,
                duplicate_window=min(DUPLICATE_SECONDS, max_age or math.inf),
                max_age=max_age,
                num_replicas=self._replicas,
            )
            await self._jetstream.add_stream(config)
        self._streams.add(stream)

    async def _need_all(self, destination: str) -> None:
        name = _token(destination)
        await self._need(name, [f"{name}.events.*", f"{name}.group.*"], self._max_age)
        await self._need(f"{name}_dead", [f"{name}.dead.*"], 0)

    # -- publishing

    async def _publish_one(self, message: OutgoingMessage) -> PublishResult:
        name = _token(message.destination)
        headers = {
            **{each: _written(value) for each, value in message.headers.items()},
            **{
                each: _written(value)
                for each, value in to_headers(message.attributes, self.capabilities.prefix).items()
            },
            CONTENT_TYPE: message.content_type,
            "Nats-Msg-Id": message.id,
        }
        if message.key is not None:
            headers[KEY] = _written(message.key)
        connections = self._connection.stats["reconnects"]
        number = zlib.crc32((message.key or message.id).encode()) % _SUBJECTS
        try:
            await self._need_all(message.destination)
            await self._broker.publish(
                message.body,
                f"{name}.events.{number}",
                headers=headers,
                stream=name,
                timeout=_PUBLISH_SECONDS,
            )
        except MaxPayloadError as error:
            return PublishResult(Outcome.PERMANENT, str(error))
        except APIError as error:
            self._streams.discard(name)
            is_too_large = error.err_code == _TOO_LARGE
            return PublishResult(
                Outcome.PERMANENT if is_too_large else Outcome.TRANSIENT, str(error)
            )
        except Exception as error:
            self._streams.discard(name)
            was_there = self._is_connected and connections == self._connection.stats["reconnects"]
            outcome = Outcome.TRANSIENT if was_there else Outcome.UNAVAILABLE
            return PublishResult(outcome, f"{type(error).__name__}: {error}")
        return CONFIRMED

    # -- consuming

    def _make_subscribed(self, subscription: Subscription, handler: Handler) -> _Subscribed:
        return _Subscribed(self, subscription, handler)

    async def lag(self, subscription: Subscription) -> int | None:
        return await self._waiting(subscription.destination, _token(subscription.group))

    async def _waiting(self, destination: str, consumer: str) -> int | None:
        try:
            info = await self._jetstream.consumer_info(_token(destination), consumer)
        except NotFoundError:
            return None
        waiting: int | None = info.num_pending
        return waiting

    # -- dead messages

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        found: list[DeadMessage] = []
        async with contextlib.aclosing(self._dead_of(subscription)) as there:
            async for raw in there:
                found.append(_dead(raw, subscription))
                if len(found) >= limit:
                    break
        return found

    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        subject = f"{_token(subscription.destination)}.group.{_token(subscription.group)}"

        async def requeue(raw: Any) -> None:
            headers = {
                name: value
                for name, value in _others(raw.headers).items()
                if name.lower() not in OF_DEATH
            }
            await self._jetstream.publish(subject, raw.data, headers=headers)

        return await self._each_dead(subscription, ids, requeue)

    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        return await self._each_dead(subscription, ids, None)

    async def _each_dead(
        self,
        subscription: Subscription,
        ids: Sequence[str] | None,
        do: Callable[[Any], Awaitable[None]] | None,
    ) -> int:
        stream = f"{_token(subscription.destination)}_dead"
        wanted = None if ids is None else set(ids)
        count = 0

        async def settle(raw: Any) -> None:
            if do is not None:
                await do(raw)
            await self._jetstream.delete_msg(stream, raw.metadata.sequence.stream)

        async with contextlib.aclosing(self._dead_of(subscription)) as found:
            while chosen := await _some(found, wanted):
                await asyncio.gather(*map(settle, chosen))
                count += len(chosen)
        return count

    async def _dead_of(self, subscription: Subscription) -> AsyncGenerator[Any, None]:
        await self._need_all(subscription.destination)
        name = _token(subscription.destination)
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE, mem_storage=True, inactive_threshold=_ASK_SECONDS
        )
        found = await self._jetstream.pull_subscribe(
            f"{name}.dead.{_token(subscription.group)}", stream=f"{name}_dead", config=config
        )
        try:
            # What dies meanwhile is left for another time.
            remaining = (await found.consumer_info()).num_pending
            while remaining > 0:
                for raw in await found.fetch(min(remaining, _WINDOW), timeout=_FETCH_SECONDS):
                    remaining -= 1
                    yield raw
        except NatsTimeoutError:
            pass  # somebody else has taken the rest out
        finally:
            await found.unsubscribe()


class _Subscribed(BaseSubscribed[NatsTransport]):
    def __init__(
        self, transport: NatsTransport, subscription: Subscription, handler: Handler
    ) -> None:
        super().__init__(transport, subscription, handler)
        self._held: dict[int, Any] = {}
        self._inbox: Any = None
        self._consumer = _token(subscription.group)
        self._asked = 0
        self._changed = asyncio.Event()
        self._connections = 0
        self._is_lost = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._attach()
        self._tasks = [
            start_background(self._ask(), name=f"subscription of {self._title}"),
            start_background(self._renew(), name=f"renewal of {self._title}"),
        ]

    async def _attach(self) -> None:
        subscription, transport = self._subscription, self._transport
        name = _token(subscription.destination)
        await transport._need_all(subscription.destination)
        events = f"{name}.events.*"
        if subscription.mode == "broadcast":
            config = ConsumerConfig(
                deliver_policy=DeliverPolicy.NEW,
                filter_subject=events,
                ack_wait=ACK_SECONDS,
                inactive_threshold=60.0,
            )
            self._consumer = (await transport._jetstream.add_consumer(name, config)).name
        else:
            consumer = self._consumer
            config = ConsumerConfig(
                durable_name=consumer,
                filter_subjects=[events, f"{name}.group.{consumer}"],
                ack_wait=ACK_SECONDS,
                max_ack_pending=-1,
                # A group that is new hears of what happens from now on.
                deliver_policy=DeliverPolicy.NEW,
            )
            try:
                await transport._jetstream.consumer_info(name, consumer)
            except NotFoundError:
                await transport._jetstream.add_consumer(name, config)
        connection = transport._connection
        if self._inbox is None:
            self._inbox = await connection.subscribe(connection.new_inbox(), cb=self._take)
        self._asked = 0
        self._is_lost = False
        self._connections = connection.stats["reconnects"]

    async def _ask(self) -> None:
        """Ask for as many messages as there is room for, again and again."""
        connection = self._transport._connection
        fetched = self._subscription.fetched
        stream = _token(self._subscription.destination)
        asked_at = 0.0
        while True:
            self._changed.clear()
            if self._is_lost or connection.stats["reconnects"] != self._connections:
                await self._attach_again()
                continue
            now = time.monotonic()
            if now - asked_at > 2 * _ASK_SECONDS:
                self._asked = 0  # whatever became of that
            room = fetched - self._lanes.in_flight - self._asked
            if connection.is_connected and (room > fetched // 2 or (room > 0 and not self._asked)):
                asked_at = now
                self._asked += room
                request = {"batch": room, "expires": int(_ASK_SECONDS * 1e9)}
                await connection.publish(
                    f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self._consumer}",
                    msgspec.json.encode(request),
                    reply=self._inbox.subject,
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._changed.wait()

    async def _attach_again(self) -> None:
        try:
            self._transport._streams.clear()
            await self._attach()
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"
            await asyncio.sleep(_LOOK_SECONDS)
            return
        self._error = None
        self.tell_reconnected()

    async def _take(self, raw: Any) -> None:
        status = (raw.headers or {}).get("Status") if not raw.data else None
        if status is None:
            self._asked = max(0, self._asked - 1)
            self._held[id(raw)] = raw
            message = _incoming(raw, self._subscription, raw.metadata.num_delivered or 1)
            await self._lanes.put(message, self._settling(raw))
        elif status in _ENDED:
            rest = int(raw.headers.get("Nats-Pending-Messages") or self._asked)
            self._asked = max(0, self._asked - rest)
            # A consumer that was deleted has to be made again.
            self._is_lost = status == "503" or "Deleted" in raw.headers.get("Description", "")
        self._changed.set()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(ACK_SECONDS / 3)
            for raw in list(self._held.values()):
                with contextlib.suppress(Exception):
                    await raw.in_progress()

    def _settling(self, raw: Any) -> Settle:
        async def settle(disposition: Disposition) -> None:
            del self._held[id(raw)]
            try:
                match disposition:
                    case Ack():
                        await raw.ack_sync(timeout=_PUBLISH_SECONDS)
                    case Retry(delay):
                        await raw.nak(delay=delay or None)
                    case DeadLetter() as death:
                        if self._subscription.mode == "group":
                            await self._bury(raw, death)
                        await raw.ack_sync(timeout=_PUBLISH_SECONDS)
            finally:
                self._changed.set()

        return settle

    async def _bury(self, raw: Any, death: DeadLetter) -> None:
        subscription = self._subscription
        own = death_headers(death) | {
            GROUP: subscription.group,
            DELIVERIES: str(raw.metadata.num_delivered or 1),
        }
        headers = _others(raw.headers) | {name: _written(value) for name, value in own.items()}
        subject = f"{_token(subscription.destination)}.dead.{_token(subscription.group)}"
        await self._transport._jetstream.publish(subject, raw.data, headers=headers)

    async def _close(self, drain: float) -> None:
        await end(*self._tasks[:1])
        if self._inbox is not None:
            with contextlib.suppress(NatsError, TimeoutError):
                # What the server has sent already still comes, and is given back below.
                await self._inbox.drain()
        await self._lanes.aclose(drain)
        await end(*self._tasks[1:])
        for raw in self._held.values():
            with contextlib.suppress(Exception):  # the connection is gone: it comes again later
                await raw.nak()
        self._held.clear()

    async def _own_lag(self) -> int | None:
        return await self._transport._waiting(self._subscription.destination, self._consumer)


async def _some(found: AsyncGenerator[Any, None], wanted: set[str] | None) -> list[Any]:
    """The next messages that are wanted, as many as are settled at once."""
    chosen: list[Any] = []
    async for raw in found:
        if wanted is None or str(raw.metadata.sequence.stream) in wanted:
            chosen.append(raw)
            if len(chosen) == _WINDOW:
                break
    return chosen


# -- names and messages


async def _ignore(error: Exception) -> None:
    """What connections say while they are made again is seen in `health()`."""


def _token(name: str) -> str:
    """A name as one token of a subject, and as the name of a stream or a consumer."""
    return re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):x}_", name)


def _written(value: str) -> str:
    """A text as the value of a header: percent-encoded where it is not printable ASCII."""
    return "".join(
        each if " " <= each <= "~" and each != "%" else "".join(f"%{b:02X}" for b in each.encode())
        for each in value
    )


def _others(headers: Any) -> dict[str, str]:
    """Headers without those of the server itself, which are about a stream and a message."""
    return {
        name: value
        for name, value in (headers or {}).items()
        if not name.lower().startswith("nats-")
    }


def _incoming(raw: Any, subscription: Subscription, deliveries: int) -> IncomingMessage:
    return incoming_message(subscription, raw.data or b"", _texts(raw), deliveries)


def _texts(raw: Any) -> dict[str, str]:
    return {name: unquote(value) for name, value in _others(raw.headers).items()}


def _dead(raw: Any, subscription: Subscription) -> DeadMessage:
    headers = {name.lower(): value for name, value in _texts(raw).items()}
    return dead_message(str(raw.metadata.sequence.stream), _incoming(raw, subscription, 0), headers)
