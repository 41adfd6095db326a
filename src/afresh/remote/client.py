"""`connect()`: the services of another process, cached and live, as if they were here."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from afresh.commands import CommandCalls, Commander, CommandOf
from afresh.errors import InvalidStateError
from afresh.primitives.freshness import Freshness
from afresh.rpc.client_peer import ClientPeer
from afresh.rpc.exceptions import ExceptionPolicy
from afresh.rpc.hub import RpcHub
from afresh.rpc.limits import Limits
from afresh.rpc.middleware import Middleware
from afresh.rpc.naming import PYTHON, NamingPolicy
from afresh.rpc.transports.connection import Connector

from .cache import RemoteCache, open_cache
from .kind import ComputeCalls

__all__ = ["Client", "connect"]

T = TypeVar("T")


class Client:
    """A connection to a server that is made again whenever it is lost; made by `connect`.

    Use it as an async context manager, or `aclose` it when it is not needed any more.
    """

    hub: RpcHub
    cache: RemoteCache | None

    def __init__(
        self,
        url: str,
        *,
        cache: RemoteCache | str | Path | None,
        cache_version: str,
        format: str,
        naming: NamingPolicy,
        limits: Limits | None,
        middleware: Sequence[Middleware],
        connector: Connector | None,
        read_your_writes: bool,
    ) -> None:
        self.url: str = url
        self.cache = open_cache(cache, version=cache_version)
        self.hub = RpcHub(
            naming=naming,
            limits=limits,
            outbound_middleware=middleware,
            exceptions=ExceptionPolicy(),
            kinds=(CommandCalls(), ComputeCalls(self.cache)),
            read_your_writes=read_your_writes,
        )
        self.commander: Commander = Commander()
        self._format = format
        self._connector = connector
        self._peer: ClientPeer | None = None

    @property
    def peer(self) -> ClientPeer:
        """This end of the connection; dials when it is first asked for, in a running event loop."""
        if self._peer is None:
            self._peer = self.hub.client_peer(
                self.url, format=self._format, connector=self._connector
            )
            self._peer.wanted()
        return self._peer

    async def __aenter__(self) -> Self:
        _ = self.peer
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._peer is not None and self._peer.is_connected

    def service(self, contract: type[T], *, name: str | None = None) -> T:
        """Return the server's service of this contract.

        Its compute methods are nodes of this process's graph: cached, and stale when the server
        says so. Its command handlers can be called as methods, and by `call`. Its other methods are
        plain calls.

        Args:
            contract: the class that the server's service implements.
            name: what the service is called on the wire, where it is not what the class says.

        Raises:
            DefinitionError: the class can't be a contract; says why.
        """
        return self.commander.add(self.peer.service(contract, name=name))

    def call(self, command: CommandOf[T]) -> Coroutine[Any, Any, T]:
        """Send a command to the service that handles it, and return its result; await it.

        The service is found by the type of the command, among those that `service` was asked for.

        Raises:
            HandlerNotFoundError: none of them handles such commands.

        Example:
            ```python
            orders = client.service(Orders)
            order = await client.call(PlaceOrder("u1", lines))
            ```
        """
        return self.commander.call(command)

    @property
    def freshness(self) -> str:
        """What this client has seen, as a text; empty if nothing of late.

        For another transport, such as a header of a plain HTTP API, and another client: see
        `App.wait_until_fresh` and `must_see`.
        """
        return "" if self.hub.seen is None else str(self.hub.seen.known)

    def must_see(self, freshness: str) -> None:
        """Have later calls answered with nothing older than what somebody else has seen.

        Args:
            freshness: what `freshness` of that one gave, or `CommandContext.freshness`.

        Raises:
            ValueError: it is no such text.
            InvalidStateError: the client was made with ``read_your_writes=False``.
        """
        if self.hub.seen is None:
            raise InvalidStateError(
                "This client takes no heed of what others have seen; make it with "
                "connect(…, read_your_writes=True)."
            )
        self.hub.seen.learn(Freshness.parse(freshness))

    def serve(self, contract: type[T], implementation: T, *, name: str | None = None) -> None:
        """Let the server call back: see `current_peer`.

        Args:
            contract: the class that says what can be called.
            implementation: what is called.
            name: what the service is called on the wire, where it is not what the class says.
        """
        self.hub.serve(contract, implementation, name=name)

    async def connected(self) -> None:
        """Return when there is a connection. Calls wait for it by themselves.

        Raises:
            RejectedError: the server refuses this client for good.
            UnknownFormatError: the server does not speak the format.
            PeerClosedError: the client was closed.
        """
        await self.peer.connect()

    async def aclose(self) -> None:
        """End the connection and everything that waits for it."""
        await self.commander.aclose()
        await self.hub.aclose()
        if self.cache is not None:
            await self.cache.aclose()

    def __repr__(self) -> str:
        return f"<Client of {self.url} {'connected' if self.is_connected else 'disconnected'}>"


def connect(
    url: str,
    *,
    cache: RemoteCache | str | Path | None = None,
    cache_version: str = "",
    format: str = "msgpack6c",
    naming: NamingPolicy = PYTHON,
    limits: Limits | None = None,
    middleware: Sequence[Middleware] = (),
    connector: Connector | None = None,
    read_your_writes: bool = True,
) -> Client:
    """Return a client of the server at `url`, which dials in the background.

    Nothing has to be there yet: calls wait for the connection, results from the cache are served
    without it, and when it is lost it is made again.

    Args:
        url: "ws://…" or "wss://…", usually ending with "/rpc/ws"; "unix:…" for a Unix domain
            socket.
        cache: a file, or a `RemoteCache`, to keep results in from one start to the next.
        cache_version: what was kept under another one is dropped; change it with the types of
            results.
        format: how messages are written; "json5np" to read along.
        naming: `DOTNET` where the server is written in .NET.
        limits: sizes and times.
        middleware: put around calls, the first one outermost.
        connector: makes connections, where it is not the address that says how.
        read_your_writes: after a command, whichever host answers the next calls waits until it has
            applied what the command changed, for two seconds at most.

    Example:
        ```python
        async with connect("ws://localhost:8000/rpc/ws", cache="client.db") as client:
            orders = client.service(Orders)
            await orders.for_user("u1")
        ```
    """
    return Client(
        url,
        cache=cache,
        cache_version=cache_version,
        format=format,
        naming=naming,
        limits=limits,
        middleware=middleware,
        connector=connector,
        read_your_writes=read_your_writes,
    )
