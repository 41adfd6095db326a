"""LISTEN and NOTIFY: hosts on PostgreSQL tell each other through the database itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy.engine import URL, make_url

from .channel import ChannelWatcher, channel_name

__all__ = ["PostgresWatcher"]

_NOT_FOR_ASYNCPG = ("prepared_statement_cache_size", "prepared_statement_name_func")
"""What SQLAlchemy takes out of an address for itself."""


class PostgresWatcher(ChannelWatcher):
    """Tells other hosts with NOTIFY, on a connection that it has for itself.

    It must be a connection to the server, or through a pooler that keeps sessions together:
    a pooler that shares one server connection between transactions drops LISTEN.

    Args:
        url: the address of the database, as SQLAlchemy takes it; its driver does not matter, the
            watcher uses asyncpg.
        name: tells databases apart that live in one PostgreSQL database; the same on all hosts.
        connect_options: further arguments of `asyncpg.connect`, such as `ssl`.
        host_id: who sends, for people who look at the messages.
    """

    kind: ClassVar[str] = "postgresql"

    def __init__(
        self,
        url: str | URL,
        *,
        name: str = "",
        connect_options: Mapping[str, Any] | None = None,
        host_id: str = "",
    ) -> None:
        super().__init__(host_id=host_id)
        self.channel: str = channel_name(name)
        self._options: dict[str, Any] = connect_arguments(url, connect_options)

    async def _connect(
        self, hear: Callable[[str | bytes], None], lost: Callable[[str], None]
    ) -> _Connection:
        connection = await asyncpg.connect(**self._options)
        try:
            connection.add_termination_listener(lambda _: lost("the server closed the connection"))
            await connection.add_listener(self.channel, lambda *message: hear(message[3]))
        except BaseException:
            connection.terminate()
            raise
        return _Connection(connection, self.channel)


def connect_arguments(url: str | URL, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Translate an address of SQLAlchemy to arguments of `asyncpg.connect`.

    Args:
        url: the address.
        options: further arguments, among them those that SQLAlchemy takes for itself.
    """
    url = make_url(url)
    if not url.drivername.endswith("+asyncpg"):  # others name their options as libpq does
        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        return {"dsn": dsn, **(options or {})}
    arguments: dict[str, Any] = {
        **url.get_dialect()().create_connect_args(url)[1],
        **(options or {}),
    }
    for name in _NOT_FOR_ASYNCPG:
        arguments.pop(name, None)
    return arguments


class _Connection:
    def __init__(self, connection: Any, channel: str) -> None:
        self._connection = connection
        self._channel = channel

    async def send(self, message: str) -> None:
        await self._connection.execute("SELECT pg_notify($1, $2)", self._channel, message)

    async def check(self) -> None:
        await self._connection.execute("SELECT 1")

    async def aclose(self) -> None:
        try:
            await self._connection.close()
        finally:
            self._connection.terminate()
