"""Publish and subscribe on NATS, without its streams: nothing has to be kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoServersError

from .channel import ChannelWatcher, channel_name

__all__ = ["NatsWatcher"]


class NatsWatcher(ChannelWatcher):
    """Tells other hosts through NATS.

    Args:
        url: the address, `nats://…` or `tls://…`; several of one cluster with commas between them.
        name: tells databases apart that use one NATS; the same on all hosts.
        connect_options: further arguments of `nats.connect`, such as `user_credentials`.
        host_id: who sends, for people who look at the messages.
    """

    kind: ClassVar[str] = "nats"

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
        self._servers = url.split(",")
        self._options: dict[str, Any] = connect_options or {}

    async def _connect(
        self, hear: Callable[[str | bytes], None], lost: Callable[[str], None]
    ) -> _Connection:
        client = Client()
        reason: Exception | None = None

        async def on_message(message: Msg) -> None:
            hear(message.data)

        async def on_error(error: Exception) -> None:
            nonlocal reason
            reason = error

        async def on_close() -> None:
            lost(str(client.last_error or reason or "the server closed the connection"))

        connection = _Connection(client, self.channel)
        try:
            # Without reconnecting: a connection that the library renews by itself has gaps.
            await client.connect(
                servers=self._servers,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                closed_cb=on_close,
                error_cb=on_error,
                **self._options,
            )
            await client.subscribe(self.channel, cb=on_message)
            await connection.settle()
        except BaseException as error:
            await connection.aclose()
            if isinstance(error, NoServersError) and reason is not None:
                raise reason from None
            raise
        return connection


class _Connection:
    def __init__(self, client: Client, channel: str) -> None:
        self._client = client
        self._channel = channel

    async def send(self, message: str) -> None:
        await self._client.publish(self._channel, message.encode())
        await self.settle()

    async def settle(self) -> None:
        """Return when the server has everything that was sent."""
        # The library sends the ping of a flush ahead of what waits to be written; by the time of
        # the answer that is written, and the answer to a second ping comes after it.
        await self._client.flush()
        await self._client.flush()

    async def check(self) -> None:
        await self._client.flush()

    async def aclose(self) -> None:
        await self._client.close()
