"""Redis Streams, by FastStream: a stream for each destination, a consumer group for each group.

What is to be handled again later waits in a sorted set, and comes back by a stream that its group
alone reads, as do dead messages, which are kept in a stream of their own. Entries are written as
FastStream writes them, so that its subscribers read them too. Order per key holds within a host;
consumers of a group on several hosts take messages side by side. Messages are as durable as the
server makes them: with its append-only file.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from faststream.redis import RedisBroker
from redis.asyncio.retry import Retry as ConnectionRetry
from redis.backoff import NoBackoff
from redis.exceptions import AuthorizationError, NoPermissionError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

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

__all__ = ["RedisTransport"]

MAX_BYTES = 16_777_216
"""Redis takes more, but everybody waits while it moves that much."""

IDLE_SECONDS = 30.0
"""A message that is not settled in this time is handed to another host; handlers that take longer
renew it."""

_CONNECT_SECONDS = 5.0
_PUBLISH_SECONDS = 10.0
_BLOCK_SECONDS = 0.5
_SCAN_SECONDS = 1.0
_PAGE = 500
_DATA = b"__data__"
_KEY = "x-afresh-key"
_CONTENT_TYPE = "content-type"
_DELIVERIES = "x-afresh-deliveries"
_REASON = "x-afresh-reason"
_ERROR = "x-afresh-error"
_DIED_AT = "x-afresh-died-at"
_UNIQUE = "x-afresh-unique"
_OF_DEATH = {_DELIVERIES, _REASON, _ERROR, _DIED_AT, _UNIQUE}
_RESERVED = {_KEY, _CONTENT_TYPE, "correlation_id", *_OF_DEATH}

_MOVE_DUE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, data in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('XADD', KEYS[2], '*', '__data__', data)
  redis.call('ZREM', KEYS[1], data)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then
  return math.max(0, first[2] - now)
end
return -1
"""
"""Moves what is due from the sorted set to the stream; returns milliseconds until more is."""


class RedisTransport(Transport):
    """A connection to Redis, or to Valkey.

    Args:
        url: ``redis://user:password@host:6379/0``, or ``rediss://…``.
        broker: a `faststream.redis.RedisBroker` in place of the address; it stays yours, with its
            subscribers: start and stop it.
        max_bytes: the largest body that is taken.
        max_length: about how many messages a stream keeps, handled or not; all unless given.

    Example:
        ```python
        app = App(database=…, broker=Broker("redis://localhost:6379", source="/shop"))
        ```
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        broker: RedisBroker | None = None,
        max_bytes: float = MAX_BYTES,
        max_length: int | None = None,
    ) -> None:
        self.capabilities: Capabilities = Capabilities(
            name="redis",
            prefix="ce-",
            is_durable=False,
            ordered_keys=False,
            deduplicates=0,
            delays_retries=True,
            has_dead_letters=True,
            max_bytes=max_bytes,
        )
        self._is_owned = broker is None
        options: dict[str, Any] = {
            "logger": None,
            "apply_types": False,
            "socket_connect_timeout": _CONNECT_SECONDS,
            "socket_timeout": _PUBLISH_SECONDS,
            # Connections that the server cut meanwhile are made again at once.
            "retry": ConnectionRetry(NoBackoff(), 1),
        }
        self._broker: RedisBroker = broker or RedisBroker(url, **options)
        self._max_length = max_length
        self._connection: Any = None
        self._is_connected = False
        self._subscribed: set[Subscribed] = set()

    # -- the connection

    async def start(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection: Any = await self._broker.connect()
                await connection.ping()
        except Exception as error:
            self._is_connected = False
            raise ConnectionError(f"Redis can't be reached: {error}") from error
        self._connection = connection
        self._is_connected = True

    def health(self) -> dict[str, Any]:
        connected = self._is_connected
        return {"connected": connected, "error": None if connected else "Redis is not connected."}

    async def aclose(self) -> None:
        for subscribed in list(self._subscribed):
            await subscribed.aclose(0)
        connection, self._connection = self._connection, None
        self._is_connected = False
        if connection is not None and self._is_owned:
            await self._broker.stop()

    # -- publishing

    async def publish(self, messages: Sequence[OutgoingMessage]) -> Sequence[PublishResult]:
        if self._connection is None:
            gone = PublishResult(Outcome.UNAVAILABLE, "Redis is not connected.")
            return [gone] * len(messages)
        results: list[PublishResult] = [CONFIRMED] * len(messages)
        # One connection keeps the order, and takes all of them at once.
        pipeline = self._connection.pipeline(transaction=False)
        sent: list[int] = []
        for number, message in enumerate(messages):
            if len(message.body) > self.capabilities.max_bytes:
                error = (
                    f"{len(message.body):,} bytes are more than {self.capabilities.max_bytes:,}."
                )
                results[number] = PublishResult(Outcome.PERMANENT, error)
                continue
            headers = {
                **message.headers,
                **to_headers(message.attributes, self.capabilities.prefix),
                _CONTENT_TYPE: message.content_type,
            }
            if message.key is not None:
                headers[_KEY] = message.key
            try:
                await self._broker.publish(
                    message.body,
                    stream=message.destination,
                    headers=_encoded(headers),
                    maxlen=self._max_length,
                    pipeline=pipeline,
                )
            except Exception as error:  # headers that can't be written
                results[number] = PublishResult(Outcome.PERMANENT, str(error))
                continue
            sent.append(number)
        answers: Sequence[Any]
        try:
            async with asyncio.timeout(_PUBLISH_SECONDS):
                answers = await pipeline.execute(raise_on_error=False) if sent else []
        except Exception as error:
            answers = [error] * len(sent)
        for number, answer in zip(sent, answers, strict=True):
            if isinstance(answer, Exception):
                results[number] = PublishResult(
                    _outcome(answer), f"{type(answer).__name__}: {answer}"
                )
        if sent:
            self._is_connected = not any(
                result.outcome is Outcome.UNAVAILABLE for result in results
            )
        return results

    async def _written(self, body: bytes, headers: dict[str, str]) -> bytes:
        """Return a message as FastStream writes it."""
        return await self._broker.message_format.encode(
            message=body,
            reply_to=None,
            headers=_encoded(headers),
            correlation_id=headers.get("correlation_id", ""),
        )

    def _read(self, fields: dict[bytes, bytes]) -> tuple[bytes, dict[str, str]]:
        """Return body and headers of an entry, whoever wrote it."""
        data = fields.get(_DATA)
        if data is not None:
            return self._broker.message_format.parse(data)
        headers = {
            name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for name, value in fields.items()
        }
        body = headers.pop("data", None) or headers.pop("body", "")
        return body.encode(), headers

    # -- consuming

    async def subscribe(self, subscription: Subscription, handler: Handler) -> Subscribed:
        if self._connection is None:
            raise InvalidStateError("Start the transport before you subscribe.")
        kind = _Broadcast if subscription.mode == "broadcast" else _Shared
        subscribed = kind(self, subscription, handler)
        try:
            await subscribed.start()
        except Exception as error:
            await subscribed._lanes.aclose(0)
            await subscribed._detach()
            raise ConnectionError(f"Redis refuses the subscription: {error}") from error
        self._subscribed.add(subscribed)
        return subscribed

    # -- dead messages

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        entries = await self._connection.xrange(_dead_name(subscription), count=limit)
        return [self._dead_of(name, fields, subscription) for name, fields in entries]

    def _dead_of(
        self, name: bytes, fields: dict[bytes, bytes], subscription: Subscription
    ) -> DeadMessage:
        body, headers = self._read(fields)
        died_at = headers.get(_DIED_AT)
        return DeadMessage(
            name.decode(),
            _incoming(body, headers, subscription, 0),
            headers.get(_REASON, ""),
            headers.get(_ERROR, ""),
            float(died_at) if died_at else None,
        )

    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        dead, again = _dead_name(subscription), _again_name(subscription)
        count = 0
        async for name, fields in self._each_dead(subscription, ids):
            body, headers = self._read(fields)
            kept = {each: value for each, value in headers.items() if each not in _OF_DEATH}
            pipeline = self._connection.pipeline(transaction=True)
            pipeline.xadd(again, {_DATA: await self._written(body, kept)})
            pipeline.xdel(dead, name)
            await pipeline.execute()
            count += 1
        return count

    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        count = 0
        async for name, _ in self._each_dead(subscription, ids):
            count += await self._connection.xdel(_dead_name(subscription), name)
        return count

    async def _each_dead(
        self, subscription: Subscription, ids: Sequence[str] | None
    ) -> AsyncIterator[tuple[bytes, dict[bytes, bytes]]]:
        dead = _dead_name(subscription)
        if ids is not None:
            for each in ids:
                for entry in await self._connection.xrange(dead, each, each):
                    yield entry
            return
        # What dies meanwhile is left for another time.
        last = await self._connection.xrevrange(dead, count=1)
        start = b"-"
        while last:
            entries = await self._connection.xrange(dead, start, last[0][0], count=_PAGE)
            for entry in entries:
                yield entry
            if len(entries) < _PAGE:
                return
            start = b"(" + entries[-1][0]

    def __repr__(self) -> str:
        return f"<RedisTransport, {'connected' if self._is_connected else 'not connected'}>"


@dataclass(frozen=True, slots=True)
class _Entry:
    stream: str
    id: bytes
    fields: dict[bytes, bytes]
    deliveries: int = 1


class _Reading(Subscribed):
    """Reads entries, and hands them on, until it is closed."""

    def __init__(
        self, transport: RedisTransport, subscription: Subscription, handler: Handler
    ) -> None:
        self._transport = transport
        self._subscription = subscription
        self._lanes = Lanes(subscription, handler)
        self._reader: Any = None
        self._reader_id = 0
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._lag: int | None = None
        self._error: str | None = None

    async def start(self) -> None:
        await self._attach()
        title = f"subscription of {self._subscription.group} at Redis"
        self._tasks = [start_background(self._work(), name=title)]

    async def _attach(self) -> None:
        await self._detach()
        self._reader = self._transport._connection.client()
        self._reader_id = await self._reader.client_id()

    async def _detach(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(Exception):
                await reader.aclose()

    async def _work(self) -> None:
        is_lost = False
        while not self._is_closing:
            try:
                if is_lost:
                    await self._attach()
                    is_lost = False
                    self._transport._is_connected = True
                    self._error = None
                    if self._subscription.on_connected is not None:
                        self._subscription.on_connected()
                self._changed.clear()
                room = self._subscription.fetched - self._lanes.in_flight
                if room < 1:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_BLOCK_SECONDS):
                            await self._changed.wait()
                    continue
                entries = await self._fetch(room)
            except Exception as error:
                self._error = f"{type(error).__name__}: {error}"
                if _outcome(error) is Outcome.UNAVAILABLE:
                    self._transport._is_connected = False
                is_lost = True
                await asyncio.sleep(_BLOCK_SECONDS)
                continue
            for entry in entries:
                await self._hand_over(entry)

    async def _fetch(self, room: int) -> list[_Entry]:
        """Return entries that are new; waits for them a short time."""
        raise NotImplementedError

    async def _settle(self, entry: _Entry, disposition: Disposition) -> None:
        raise NotImplementedError

    async def _hand_over(self, entry: _Entry) -> None:
        body, headers = self._transport._read(entry.fields)
        message = _incoming(body, headers, self._subscription, entry.deliveries)

        async def settle(disposition: Disposition) -> None:
            try:
                await self._settle(entry, disposition)
            finally:
                self._changed.set()

        await self._lanes.put(message, settle)

    async def aclose(self, drain: float = 30.0) -> None:
        self._transport._subscribed.discard(self)
        if self._is_closing:
            return
        self._is_closing = True
        self._changed.set()
        with contextlib.suppress(Exception):
            await self._transport._connection.client_unblock(self._reader_id)
        await asyncio.wait(self._tasks[:1])
        await self._lanes.aclose(drain)
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._detach()

    def health(self) -> dict[str, Any]:
        connected = self._transport._is_connected
        return {
            "in_flight": self._lanes.in_flight,
            "lag": self._lag,
            "error": self._error or (None if connected else "Redis is not connected."),
        }


class _Broadcast(_Reading):
    """Reads all that comes from now on, by itself."""

    _position: bytes | None = None

    async def _attach(self) -> None:
        await super()._attach()
        if self._position is None:
            last = await self._reader.xrevrange(self._subscription.destination, count=1)
            self._position = last[0][0] if last else b"0-0"

    async def _fetch(self, room: int) -> list[_Entry]:
        stream = self._subscription.destination
        answer = await self._reader.xread(
            {stream: self._position}, count=room, block=int(_BLOCK_SECONDS * 1000)
        )
        entries = _entries(answer)
        if entries:
            self._position = entries[-1].id
        return entries

    async def _settle(self, entry: _Entry, disposition: Disposition) -> None:
        if isinstance(disposition, Retry) and not self._is_closing:
            again = _Entry(entry.stream, entry.id, entry.fields, entry.deliveries + 1)
            title = f"retry of {self._subscription.group} at Redis"
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks.append(start_background(self._later(again, disposition.delay), name=title))

    async def _later(self, entry: _Entry, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._hand_over(entry)


class _Shared(_Reading):
    """Reads as one of a group."""

    def __init__(
        self, transport: RedisTransport, subscription: Subscription, handler: Handler
    ) -> None:
        super().__init__(transport, subscription, handler)
        self._consumer = secrets.token_hex(8)
        self._again = _again_name(subscription)
        self._streams = subscription.destination, self._again
        self._position = "$"
        self._held: set[tuple[str, bytes]] = set()
        self._cursors: dict[str, Any] = {}
        self._scan_at = 0.0
        self._due: float | None = None

    async def start(self) -> None:
        await super().start()
        title = f"renewal of {self._subscription.group} at Redis"
        self._tasks.append(start_background(self._renew(), name=title))

    async def _attach(self) -> None:
        await super()._attach()
        main, group = self._subscription.destination, self._subscription.group
        # A group that is new hears of what happens from now on; one that was lost with the data
        # of the server, of what it has not seen.
        for stream, position in ((main, self._position), (self._again, "0")):
            try:
                await self._reader.xgroup_create(stream, group, position, mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        await self._look()
        self._scan_at = 0.0

    async def _look(self) -> None:
        for info in await self._reader.xinfo_groups(self._subscription.destination):
            if _text(info["name"]) == self._subscription.group:
                self._position = _text(info["last-delivered-id"])
                self._lag = info.get("lag")

    async def _fetch(self, room: int) -> list[_Entry]:
        now = time.monotonic()
        if now >= self._scan_at:
            left = [entry for stream in self._streams for entry in await self._left(stream, room)]
            if left:
                return left  # before what is new
            await self._look()
            self._scan_at = now + _SCAN_SECONDS
        due = await self._reader.eval(_MOVE_DUE, 2, _later_name(self._subscription), self._again)
        block = int(_BLOCK_SECONDS * 1000)
        if due >= 0:
            block = max(1, min(block, due))
        answer = await self._reader.xreadgroup(
            self._subscription.group,
            self._consumer,
            dict.fromkeys(self._streams, ">"),
            count=room,
            block=block,
        )
        return _entries(answer)

    async def _left(self, stream: str, room: int) -> list[_Entry]:
        """Return what nobody works on any more."""
        reader, group = self._reader, self._subscription.group
        answer = await reader.xautoclaim(
            stream,
            group,
            self._consumer,
            min_idle_time=int(IDLE_SECONDS * 1000),
            start_id=self._cursors.get(stream, "0-0"),
            count=room,
        )
        self._cursors[stream] = answer[0]
        found = []
        for name, fields in answer[1]:
            if fields is None or (stream, name) in self._held:
                continue
            pending = await reader.xpending_range(stream, group, name, name, 1)
            deliveries = pending[0]["times_delivered"] if pending else 1
            found.append(_Entry(stream, name, fields, deliveries))
        return found

    async def _hand_over(self, entry: _Entry) -> None:
        self._held.add((entry.stream, entry.id))
        await super()._hand_over(entry)

    async def _settle(self, entry: _Entry, disposition: Disposition) -> None:
        self._held.discard((entry.stream, entry.id))
        connection = self._transport._connection
        if isinstance(disposition, Ack) and entry.stream != self._again:
            await connection.xack(entry.stream, self._subscription.group, entry.id)
            return
        pipeline = connection.pipeline(transaction=True)
        match disposition:
            case Retry(delay):
                data = await self._copy(entry, {_UNIQUE: secrets.token_hex(8)})
                if delay > 0:
                    seconds, microseconds = await connection.time()
                    due = (seconds + microseconds / 1_000_000 + delay) * 1000
                    pipeline.zadd(_later_name(self._subscription), {data: int(due)})
                else:
                    pipeline.xadd(self._again, {_DATA: data})
            case DeadLetter(reason, error):
                more = {_REASON: reason[:4000], _ERROR: error, _DIED_AT: str(time.time())}
                data = await self._copy(entry, more)
                pipeline.xadd(_dead_name(self._subscription), {_DATA: data})
            case Ack():
                pass
        pipeline.xack(entry.stream, self._subscription.group, entry.id)
        if entry.stream == self._again:
            pipeline.xdel(entry.stream, entry.id)  # nobody else reads it
        await pipeline.execute()

    async def _copy(self, entry: _Entry, more: dict[str, str]) -> bytes:
        body, headers = self._transport._read(entry.fields)
        before = int(headers.get(_DELIVERIES, 0))
        counted = {_DELIVERIES: str(before + entry.deliveries)}
        return await self._transport._written(body, {**headers, **more, **counted})

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SECONDS / 3)
            for stream in self._streams:
                held = [name for each, name in self._held if each == stream]
                with contextlib.suppress(Exception):  # they may come twice
                    await self._claim(stream, self._consumer, held, 0)

    async def _claim(self, stream: str, consumer: str, names: list[bytes], idle: float) -> None:
        if names:
            await self._transport._connection.xclaim(
                stream,
                self._subscription.group,
                consumer,
                0,
                names,
                idle=int(idle * 1000),
                justid=True,
            )

    async def aclose(self, drain: float = 30.0) -> None:
        if self._is_closing:
            return
        await super().aclose(drain)
        with contextlib.suppress(Exception):  # others claim them when they have been idle
            for stream in self._streams:
                await self._give_back(stream)

    async def _give_back(self, stream: str) -> None:
        connection, group = self._transport._connection, self._subscription.group
        pending = await connection.xpending_range(
            stream, group, "-", "+", _PAGE, consumername=self._consumer
        )
        names = [each["message_id"] for each in pending]
        await self._claim(stream, "nobody", names, 2 * IDLE_SECONDS)
        if len(names) < _PAGE:
            await connection.xgroup_delconsumer(stream, group, self._consumer)


# -- names and messages


def _again_name(subscription: Subscription) -> str:
    # Braces keep all of a destination on one node of a cluster.
    return f"{{{subscription.destination}}}.{subscription.group}.again"


def _later_name(subscription: Subscription) -> str:
    return f"{{{subscription.destination}}}.{subscription.group}.later"


def _dead_name(subscription: Subscription) -> str:
    return f"{{{subscription.destination}}}.{subscription.group}.dead"


def _outcome(error: Exception) -> Outcome:
    match error:
        case AuthorizationError() | NoPermissionError():
            return Outcome.PERMANENT
        case RedisConnectionError() | RedisTimeoutError() | ReadOnlyError() | OSError():
            return Outcome.UNAVAILABLE
        case ResponseError() if str(error).startswith("WRONGTYPE"):
            return Outcome.PERMANENT
    return Outcome.TRANSIENT


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _encoded(headers: dict[str, str]) -> dict[str, Any]:
    """Headers for FastStream, which counts characters of texts where it should count bytes."""
    return {name: value.encode() for name, value in headers.items()}


def _entries(answer: Any) -> list[_Entry]:
    """What XREAD and XREADGROUP answer, in either version of the protocol."""
    found = []
    for stream, entries in answer.items() if isinstance(answer, dict) else answer or ():
        rows = entries[0] if entries and isinstance(entries[0], list) else entries
        found += [_Entry(_text(stream), name, fields) for name, fields in rows if fields]
    return found


def _incoming(
    body: bytes, headers: dict[str, str], subscription: Subscription, deliveries: int
) -> IncomingMessage:
    attributes, others = split_headers(headers)
    return IncomingMessage(
        subscription.destination,
        body,
        others.get(_CONTENT_TYPE, ""),
        attributes,
        {name: value for name, value in others.items() if name not in _RESERVED},
        others.get(_KEY) or attributes.get("partitionkey"),
        int(others.get(_DELIVERIES, 0)) + deliveries,
    )
