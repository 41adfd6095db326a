"""Publish and subscribe on Redis, Valkey and others that speak its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from afresh.primitives.tasks import start_background

from .channel import ChannelWatcher, channel_name

__all__ = ["RedisWatcher"]


class RedisWatcher(ChannelWatcher):
    """Tells other hosts through Redis, with two connections: one listens and one sends.

    Args:
        url: the address: `redis://…`, `rediss://…` with TLS, or `unix://…`.
        name: tells databases apart that use one Redis; the same on all hosts.
        connect_options: further arguments of `redis.asyncio.Redis.from_url`.
        host_id: who sends, for people who look at the messages.
    """

    kind: ClassVar[str] = "redis"

    def __init__(
        self,
        url: str,
        *,
        name: str = "",
        connect_options: dict[str, Any] | None = None,
        host_id: str = "",
    ) -> None:
        super().__init__(host_id=host_id)
        self.channel: str = channel_name(name)
        self._url = url
        self._options: dict[str, Any] = connect_options or {}

    async def _connect(
        self, hear: Callable[[str | bytes], None], lost: Callable[[str], None]
    ) -> _Connection:
        # Without retries: a connection that the library renews by itself has missed messages.
        client = Redis.from_url(self._url, retry=Retry(NoBackoff(), 0), **self._options)
        connection = _Connection(client, self.channel)
        try:
            await connection.listen(hear, lost)
        except BaseException:
            await connection.aclose()
            raise
        return connection


class _Connection:
    def __init__(self, client: Redis, channel: str) -> None:
        self._client = client
        self._channel = channel
        self._pubsub: PubSub = client.pubsub()
        self._answered = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    async def listen(
        self, hear: Callable[[str | bytes], None], lost: Callable[[str], None]
    ) -> None:
        await self._pubsub.subscribe(self._channel)
        await self._pubsub.get_message(timeout=None)  # that we are subscribed
        self._listener = start_background(self._listen(hear, lost), name="redis watcher listens")

    async def _listen(
        self, hear: Callable[[str | bytes], None], lost: Callable[[str], None]
    ) -> None:
        try:
            while True:
                message = await self._pubsub.get_message(timeout=None)
                if message is None:
                    continue
                if message["type"] == "message":
                    hear(message["data"])
                elif message["type"] == "pong":
                    self._answered.set()
                elif message["type"] == "subscribe":
                    raise ConnectionError("the subscription was renewed, and may have gaps")
        except Exception as error:
            lost(str(error) or repr(error))

    async def send(self, message: str) -> None:
        await self._client.publish(self._channel, message)

    async def check(self) -> None:
        self._answered.clear()
        await self._client.ping()
        await self._pubsub.ping()
        await self._answered.wait()

    async def aclose(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        await self._client.aclose()
