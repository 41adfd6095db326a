"""Redis Streams, by FastStream: a stream for each destination, a consumer group for each group.

What is to be handled again later waits in a sorted set, and comes back by a stream that its group
alone reads, as do dead messages, which are kept in a stream of their own. Entries are written as
FastStream writes them, so that its subscribers read them too. Order per key holds within a host;
consumers of a group on several hosts take messages side by side. Messages are as durable as the
server makes them: with its append-only file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from faststream.redis import RedisBroker
from redis.asyncio.retry import Retry as ConnectionRetry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

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
from .base import BaseTransport
from .headers import CONTENT_TYPE, KEY, OF_DEATH, dead_message, incoming_message
from .redis_entries import DATA, again_name, dead_name, encoded, later_name, outcome_of, text
from .redis_subscribed import RedisBroadcast, RedisShared, RedisSubscribed

__all__ = ["RedisTransport"]

MAX_BYTES = 16_777_216
"""Redis takes more, but everybody waits while it moves that much."""

_CONNECT_SECONDS = 5.0
_PUBLISH_SECONDS = 10.0
_PAGE = 500


class RedisTransport(BaseTransport):
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

    title = "Redis"

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        broker: RedisBroker | None = None,
        max_bytes: float = MAX_BYTES,
        max_length: int | None = None,
    ) -> None:
        super().__init__(
            Capabilities(
                name="redis",
                prefix="ce-",
                is_durable=False,
                ordered_keys=False,
                deduplicates=0,
                delays_retries=True,
                has_dead_letters=True,
                max_bytes=max_bytes,
            )
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
        self._has_answered = False

    # -- the connection

    @property
    def _is_started(self) -> bool:
        return self._connection is not None

    @property
    def _is_connected(self) -> bool:
        return self._has_answered

    @property
    def _may_publish(self) -> bool:
        return self._is_started  # whether the server is there is seen by trying

    async def start(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection: Any = await self._broker.connect()
                await connection.ping()
        except Exception as error:
            self._has_answered = False
            raise ConnectionError(f"Redis can't be reached: {error}") from error
        self._connection = connection
        self._has_answered = True

    async def aclose(self) -> None:
        await self._close_subscribed()
        connection, self._connection = self._connection, None
        self._has_answered = False
        if connection is not None and self._is_owned:
            await self._broker.stop()

    # -- publishing

    async def _publish(self, messages: Sequence[OutgoingMessage]) -> Sequence[PublishResult]:
        results: list[PublishResult] = [CONFIRMED] * len(messages)
        # One connection keeps the order, and takes all of them at once.
        pipeline = self._connection.pipeline(transaction=False)
        sent: list[int] = []
        for number, message in enumerate(messages):
            headers = {
                **message.headers,
                **to_headers(message.attributes, self.capabilities.prefix),
                CONTENT_TYPE: message.content_type,
            }
            if message.key is not None:
                headers[KEY] = message.key
            try:
                await self._broker.publish(
                    message.body,
                    stream=message.destination,
                    headers=encoded(headers),
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
                    outcome_of(answer), f"{type(answer).__name__}: {answer}"
                )
        if sent:
            self._has_answered = not any(
                result.outcome is Outcome.UNAVAILABLE for result in results
            )
        return results

    async def _written(self, body: bytes, headers: dict[str, str]) -> bytes:
        """Return a message as FastStream writes it."""
        return await self._broker.message_format.encode(
            message=body,
            reply_to=None,
            headers=encoded(headers),
            correlation_id=headers.get("correlation_id", ""),
        )

    def _read(self, fields: dict[bytes, bytes]) -> tuple[bytes, dict[str, str]]:
        """Return body and headers of an entry, whoever wrote it."""
        data = fields.get(DATA)
        if data is not None:
            return self._broker.message_format.parse(data)
        headers = {
            name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for name, value in fields.items()
        }
        body = headers.pop("data", None) or headers.pop("body", "")
        return body.encode(), headers

    # -- consuming

    def _make_subscribed(self, subscription: Subscription, handler: Handler) -> RedisSubscribed:
        kind = RedisBroadcast if subscription.mode == "broadcast" else RedisShared
        return kind(self, subscription, handler)

    async def lag(self, subscription: Subscription) -> int | None:
        waiting: int = await self._connection.zcard(later_name(subscription))
        for stream in (subscription.destination, again_name(subscription)):
            try:
                groups = await self._connection.xinfo_groups(stream)
            except ResponseError:  # there is no such stream
                return None
            lags = [each.get("lag") for each in groups if text(each["name"]) == subscription.group]
            if lags in ([], [None]):
                return None
            waiting += lags[0]
        return waiting

    # -- dead messages

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        entries = await self._connection.xrange(dead_name(subscription), count=limit)
        return [self._dead_of(name, fields, subscription) for name, fields in entries]

    def _dead_of(
        self, name: bytes, fields: dict[bytes, bytes], subscription: Subscription
    ) -> DeadMessage:
        body, headers = self._read(fields)
        message = incoming_message(subscription, body, headers, 0)
        return dead_message(name.decode(), message, headers)

    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        dead, again = dead_name(subscription), again_name(subscription)
        count = 0
        async for entries in self._each_dead(subscription, ids):
            pipeline = self._connection.pipeline(transaction=True)
            for name, fields in entries:
                body, headers = self._read(fields)
                kept = {each: headers[each] for each in headers.keys() - OF_DEATH}
                pipeline.xadd(again, {DATA: await self._written(body, kept)})
                pipeline.xdel(dead, name)
            await pipeline.execute()
            count += len(entries)
        return count

    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        count = 0
        async for entries in self._each_dead(subscription, ids):
            names = [name for name, _ in entries]
            count += await self._connection.xdel(dead_name(subscription), *names)
        return count

    async def _each_dead(
        self, subscription: Subscription, ids: Sequence[str] | None
    ) -> AsyncIterator[list[tuple[bytes, dict[bytes, bytes]]]]:
        """Dead messages, so many at a time."""
        dead = dead_name(subscription)
        if ids is not None:
            for first in range(0, len(ids), _PAGE):
                pipeline = self._connection.pipeline(transaction=False)
                for each in ids[first : first + _PAGE]:
                    pipeline.xrange(dead, each, each)
                if found := [entry for entries in await pipeline.execute() for entry in entries]:
                    yield found
            return
        # What dies meanwhile is left for another time.
        last = await self._connection.xrevrange(dead, count=1)
        start = b"-"
        while last:
            entries = await self._connection.xrange(dead, start, last[0][0], count=_PAGE)
            if entries:
                yield entries
            if len(entries) < _PAGE:
                return
            start = b"(" + entries[-1][0]
