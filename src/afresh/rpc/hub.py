"""`RpcHub`: one endpoint of a process. What it serves, whom it knows, and the rules for both."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from afresh.errors import DefinitionError, PeerClosedError, RejectedError, UnknownFormatError

from .addresses import connector_for
from .client_peer import ClientPeer
from .contracts import CallKind, ServiceDefinition, describe
from .exceptions import ExceptionPolicy
from .formats import Format, RecordNaming, Writer, get_format
from .freshness import Gate, Seen
from .inbound import Dispatcher, ServedMethod
from .kinds import REGULAR_CALLS, CallSupport
from .limits import Limits
from .middleware import Middleware
from .naming import PYTHON, NamingPolicy
from .peer import Peer
from .proxy import service_of
from .routes import Routes
from .routing import Router
from .server_peer import ServerPeer
from .transports.connection import ConnectionDetails, Connector, Receiver

if TYPE_CHECKING:
    from .system import SystemHandler

__all__ = ["DEFAULT_FORMATS", "RpcHub"]

T = TypeVar("T")

_log = logging.getLogger("afresh.rpc")

DEFAULT_FORMATS = ("json5np", "json5", "msgpack6", "msgpack6c")
"""What clients may speak, unless told otherwise; the first is for those that do not say."""


class RpcHub:
    """Serves contracts to other peers, and calls theirs.

    Args:
        naming: what Python names are on the wire; `DOTNET` for .NET and TypeScript peers, which
            changes names of fields in records too.
        formats: the formats that clients may ask for; the first is for those that do not ask.
        limits: sizes and times.
        middleware: put around calls that come in, the first one outermost.
        outbound_middleware: put around calls that are made.
        exceptions: which errors travel, and as what.
        kinds: how kinds of calls other than plain ones are made and served.
        connectors: gives for an address what dials it.
        read_your_writes: whether calls make other hosts wait until they have applied what earlier
            answers to this hub have told of.

    Example:
        ```python
        hub = RpcHub()
        hub.serve(Calculator, BasicCalculator())
        async with hub:
            peer = hub.client_peer("ws://localhost:8000/rpc/ws")
            await peer.service(Greeter).greet("you")
        ```
    """

    def __init__(
        self,
        *,
        naming: NamingPolicy = PYTHON,
        formats: Sequence[str] = DEFAULT_FORMATS,
        limits: Limits | None = None,
        middleware: Sequence[Middleware] = (),
        outbound_middleware: Sequence[Middleware] = (),
        exceptions: ExceptionPolicy | None = None,
        kinds: Sequence[CallSupport] = (),
        connectors: Callable[[str], Connector] = connector_for,
        read_your_writes: bool = True,
    ) -> None:
        self.id: uuid.UUID = uuid.uuid4()
        self.naming: NamingPolicy = naming
        self.records: RecordNaming = naming.records
        self.formats: tuple[str, ...] = tuple(formats)
        self.limits: Limits = limits or Limits()
        self.middleware: tuple[Middleware, ...] = tuple(middleware)
        self.outbound_middleware: tuple[Middleware, ...] = tuple(outbound_middleware)
        self.exceptions: ExceptionPolicy = exceptions or ExceptionPolicy()
        self.kinds: tuple[CallSupport, ...] = (*kinds, REGULAR_CALLS)
        self.system_extensions: dict[str, Callable[[Peer], SystemHandler]] = {
            name: make for kind in self.kinds for name, make in kind.system_calls.items()
        }
        self.dispatcher: Dispatcher = Dispatcher(self)
        self.gate: Gate | None = None
        """Waits until this host has applied what callers have seen; None where it follows no log.
        To be set before the first call comes in."""
        self.seen: Seen | None = Seen(self) if read_your_writes else None
        """What answers have told of, and later calls carry; None if they do not."""
        self._connector_for = connectors
        self.is_closed: bool = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._served: dict[str, tuple[ServiceDefinition, object]] = {}
        self._endpoints: dict[tuple[str, bool], list[dict[Any, ServedMethod]]] = {}
        self._writers: dict[tuple[str, str], Writer] = {}
        self._clients: dict[str, ClientPeer] = {}
        self._servers: dict[tuple[bool, str, str], ServerPeer] = {}
        self._to_flush: list[Peer] = []
        self._is_flush_due = False

    # -- what is served

    def serve(self, contract: type[T], implementation: T, *, name: str | None = None) -> None:
        """Let other peers call `implementation` by the methods of `contract`.

        Args:
            contract: the class that says what can be called.
            implementation: what is called.
            name: what the service is called on the wire, where it is not what the class says.

        Raises:
            DefinitionError: the class can't be a contract, or its name is taken; says why.
        """
        definition = self.describe(contract, name)
        taken = self._served.get(definition.wire_name)
        if taken is not None and taken[1] is not implementation:
            raise DefinitionError(
                f"{definition.wire_name!r} is served already, by {taken[1]!r}; serve one of the "
                "two under another name, with name=…."
            )
        self._served[definition.wire_name] = definition, implementation
        self._endpoints.clear()

    def describe(self, contract: type, name: str | None = None) -> ServiceDefinition:
        """Return what can be called on `contract`, with the names that this hub uses."""
        return describe(contract, self.naming, tuple(kind.kind for kind in self.kinds), name)

    def support_of(self, kind: CallKind) -> CallSupport:
        """Return what makes and serves calls of this kind."""
        return next(support for support in self.kinds if support.kind is kind)

    @property
    def services(self) -> tuple[ServiceDefinition, ...]:
        """What is served."""
        return tuple(definition for definition, _ in self._served.values())

    def endpoints(self, format: Format, is_backend: bool) -> list[dict[Any, ServedMethod]]:
        """Return the served methods by call type, then by method key."""
        key = format.key, is_backend
        found = self._endpoints.get(key)
        if found is None:
            found = self._endpoints[key] = self._make_endpoints(format, is_backend)
        return found

    def _make_endpoints(self, format: Format, is_backend: bool) -> list[dict[Any, ServedMethod]]:
        endpoints: list[dict[Any, ServedMethod]] = [{} for _ in range(8)]
        for definition, implementation in self._served.values():
            if definition.is_backend and not is_backend:
                continue
            made: dict[tuple[int, str], ServedMethod] = {}
            for name, method in definition.endpoints.items():
                if method.is_backend and not is_backend:
                    continue
                for support in (self.support_of(method.kind), REGULAR_CALLS):
                    call_type = support.kind.id
                    served = made.get((call_type, method.name))
                    if served is None:
                        served = support.served(self, method, implementation, format)
                        if self.middleware:
                            served.put_around(self.middleware)
                        made[call_type, method.name] = served
                    endpoints[call_type][format.method_key(name)] = served
        return endpoints

    # -- whom it knows

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The peers that are not closed."""
        return (*self._clients.values(), *self._servers.values())

    @property
    def client_peers(self) -> tuple[ClientPeer, ...]:
        """Those of them that dial."""
        return tuple(self._clients.values())

    def client_peer(
        self,
        url: str,
        *,
        format: str = "msgpack6c",
        connector: Connector | None = None,
        is_kept: bool = True,
    ) -> ClientPeer:
        """Return the peer that dials `url`; the same one for the same address.

        Args:
            url: "ws://…" or "wss://…" for WebSockets, "unix:…" for a Unix domain socket.
            format: how messages are written.
            connector: makes connections, where it is not the address that says how.
            is_kept: whether to dial for ever, also while nobody uses the peer.

        Raises:
            UnknownFormatError: there is no such format.
            PeerClosedError: the hub is closed.
        """
        if self.is_closed:
            raise PeerClosedError("The hub is closed: it makes no more connections.")
        self.enter_loop()
        found = self._clients.get(url)
        if found is None:
            found = ClientPeer(self, url, get_format(format), connector or self._connector_for(url))
            self._clients[url] = found
        found.is_kept = found.is_kept or is_kept
        return found

    def service(
        self,
        contract: type[T],
        router: Router,
        *,
        default: str | None = None,
        local: T | None = None,
        format: str = "msgpack6c",
        name: str | None = None,
    ) -> T:
        """Return an object of this contract that asks for each call where it goes.

        Args:
            contract: a class with annotated methods.
            router: takes the method and the arguments, returns a `Target`, or None for `default`.
            default: the address of calls for which the router has no answer.
            local: what runs the calls whose target is this process.
            format: how messages are written.
            name: what the service is called on the wire, where it is not what the class says.

        Raises:
            DefinitionError: the class can't be a contract; says why.
        """
        routes = Routes(self, router, default=default, local=local, format=format)
        return service_of(contract, name, self, routes)  # type: ignore[no-any-return]

    def accept(
        self,
        *,
        client_id: str,
        format_key: str | None,
        is_backend: bool,
        proof: tuple[str, str] | None,
        require_proof: bool,
        details: ConnectionDetails,
    ) -> Receiver:
        """Find or make the peer of a client that dials in; see `Acceptor`."""
        if self.is_closed:
            raise RejectedError("The server is shutting down.", 503)
        self.enter_loop()
        key = format_key or self.formats[0]
        if key not in self.formats:
            raise UnknownFormatError(f"Unsupported RPC serialization format: '{key[:40]}'")
        place = is_backend, key, client_id
        peer = self._servers.get(place)
        if peer is None:
            self._make_place()
            peer = ServerPeer(self, client_id, get_format(key), is_backend=is_backend)
            self._servers[place] = peer
        else:
            peer.proof.check(proof, is_required=require_proof)
        return peer.new_link(details)

    def _make_place(self) -> None:
        """See that there may be one more client, if need be in place of one that is gone."""
        if len(self._servers) < self.limits.max_peers:
            return
        gone = next((peer for peer in self._servers.values() if peer.is_gone), None)
        if gone is None:
            raise RejectedError("The server has as many clients as it can take.", 503)
        gone.close(PeerClosedError(f"{gone!r} had to make place for another client."))

    def forget(self, peer: Peer) -> None:
        """A peer was closed."""
        if isinstance(peer, ClientPeer):
            if self._clients.get(peer.url) is peer:
                del self._clients[peer.url]
        elif isinstance(peer, ServerPeer):
            place = peer.is_backend, peer.format.key, peer.client_id
            if self._servers.get(place) is peer:
                del self._servers[place]

    # -- messages

    def system_writer(self, format: Format, name: str) -> Writer:
        """Return what writes system calls of this name."""
        key = format.key, name
        found = self._writers.get(key)
        if found is None:
            found = self._writers[key] = format.writer(name)
        return found

    def will_flush(self, peer: Peer) -> None:
        """A peer has something to send: see to it in this turn of the event loop."""
        self._to_flush.append(peer)
        if not self._is_flush_due:
            self._is_flush_due = True
            peer.loop.call_soon(self.flush, context=_empty)

    def flush(self) -> None:
        """Hand what is to be sent to the connections."""
        self._is_flush_due = False
        peers = self._to_flush
        if peers:
            self._to_flush = []
            for peer in peers:
                peer.flush()

    # -- life

    def enter_loop(self) -> asyncio.AbstractEventLoop:
        """Return the running event loop, which the hub belongs to from its first peer on."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_closed():
                self._start_anew()
            self._loop = loop
        return loop

    def _start_anew(self) -> None:
        """The event loop was closed under the peers: nothing of them can be used any more."""
        self._clients.clear()
        self._servers.clear()
        self._to_flush.clear()
        self._is_flush_due = False
        self.dispatcher = Dispatcher(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all peers, and wait until nothing is left of their connections, and of the calls
        that run here, which are cancelled.
        """
        self.is_closed = True
        peers = self.peers
        for peer in peers:
            peer.close()
        self.flush()
        self.dispatcher.close()
        await self.dispatcher.wait_closed()
        for peer in peers:
            await peer.wait_closed()

    def __repr__(self) -> str:
        state = " closed" if self.is_closed else ""
        return f"<RpcHub of {len(self._served)} services, {len(self.peers)} peers{state}>"


_empty = contextvars.Context()
