"""Two hubs in one process, joined by a link that a test can cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from afresh.rpc.client_peer import ClientPeer
from afresh.rpc.exceptions import ExceptionPolicy
from afresh.rpc.hub import RpcHub
from afresh.rpc.server_peer import ServerPeer
from afresh.rpc.transports.memory import MemoryConnector

T = TypeVar("T")

URL = "memory:server"


class Pair:
    """A hub that serves, and one that calls it.

    Args:
        format: what the two speak.
        client: arguments of the calling hub.
        server: arguments of the serving hub.
    """

    def __init__(self, format: str = "msgpack6c", *, kinds: Any = (), **server: Any) -> None:
        client_arguments = server.pop("client", {})
        server.setdefault("exceptions", ExceptionPolicy(expose_messages=True))
        self.format = format
        self.server = RpcHub(kinds=kinds, **server)
        self.client = RpcHub(kinds=kinds, **client_arguments)
        self.connector = MemoryConnector(self.server)

    @property
    def peer(self) -> ClientPeer:
        """The client's end."""
        return self.client.client_peer(URL, format=self.format, connector=self.connector)

    @property
    def server_peer(self) -> ServerPeer:
        """The server's end."""
        (peer,) = self.server._servers.values()
        return peer

    def service(self, contract: type[T], implementation: T) -> T:
        """Serve an implementation, and return the client's view of it."""
        self.server.serve(contract, implementation)
        return self.peer.service(contract)

    def cut(self) -> None:
        """Lose the connection."""
        self.connector.links[-1].drop()

    def stay_offline(self) -> None:
        """Lose the connection, and let none be made."""
        self.connector.error = OSError("the network is down")
        if self.connector.links and self.connector.links[-1].is_open:
            self.cut()

    def go_online(self) -> None:
        """Let connections be made again, and try at once."""
        self.connector.error = None
        self.peer.reconnect_now()

    async def restart_server(self, **server: Any) -> RpcHub:
        """Replace the server by a new one that knows of nothing."""
        served = self.server._served
        await self.server.aclose()
        server.setdefault("exceptions", ExceptionPolicy(expose_messages=True))
        self.server = RpcHub(kinds=self.server.kinds[:-1], **server)
        self.server._served = served
        self.connector._acceptor = self.server
        self.peer.reconnect_now()
        return self.server

    async def aclose(self) -> None:
        """Close both."""
        await self.client.aclose()
        await self.server.aclose()


async def until(condition: Callable[[], object], turns: int = 2000) -> None:
    """Let the event loop turn until something holds."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be")
