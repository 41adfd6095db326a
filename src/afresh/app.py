"""`App`: what a program is put together from.

It owns the hub through which others call its services, and knows which service of a contract is to
be used here: one of its own, or one that lives elsewhere. Services are plain objects; nothing is
made for you, and nothing is looked up by name.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from afresh.commands import CommandCalls, Commander, CommandOf
from afresh.errors import DefinitionError
from afresh.remote.cache import RemoteCache, open_cache
from afresh.remote.kind import ComputeCalls
from afresh.rpc.exceptions import ExceptionPolicy
from afresh.rpc.hub import DEFAULT_FORMATS, RpcHub
from afresh.rpc.limits import Limits
from afresh.rpc.middleware import Middleware
from afresh.rpc.naming import PYTHON, NamingPolicy
from afresh.rpc.proxy import contract_of

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["App"]

S = TypeVar("S")


class App:
    """A program made of services.

    Args:
        naming: what Python names are on the wire; `DOTNET` for .NET and TypeScript clients.
        formats: the serialization formats that clients may ask for.
        limits: sizes and times.
        middleware: put around calls that come in, the first one outermost.
        expose_errors: send the texts of all errors to callers, not only of those that are meant
            for them.
        cache: a file, or a `RemoteCache`, for results of services that live elsewhere.

    Example:
        ```python
        app = App()
        orders = app.add(MemoryOrders())
        asgi = app.asgi()  # uvicorn shop:asgi
        ```
    """

    def __init__(
        self,
        *,
        naming: NamingPolicy = PYTHON,
        formats: Sequence[str] = DEFAULT_FORMATS,
        limits: Limits | None = None,
        middleware: Sequence[Middleware] = (),
        expose_errors: bool = False,
        cache: RemoteCache | str | Path | None = None,
    ) -> None:
        self._cache = open_cache(cache)
        self.hub: RpcHub = RpcHub(
            naming=naming,
            formats=formats,
            limits=limits,
            middleware=middleware,
            exceptions=ExceptionPolicy(expose_messages=expose_errors),
            kinds=(CommandCalls(), ComputeCalls(self._cache)),
        )
        self.commander: Commander = Commander()
        """Takes commands to their handlers."""
        self._services: dict[type, Any] = {}

    # -- services

    def add(
        self,
        service: S,
        *,
        contract: type | None = None,
        is_served: bool = True,
        name: str | None = None,
    ) -> S:
        """Take in a service, and let clients call it.

        A remote service can be added as well: then this program passes calls on, with its own graph
        in between.

        Args:
            service: the object.
            contract: the class that says what can be called; by default the abstract class that
                `service` implements, or its own class.
            is_served: False keeps it within this program.
            name: what it is called on the wire, where it is not what the contract says.

        Returns:
            `service`.

        Raises:
            DefinitionError: the class can't be a contract, or there is a service for it already.
        """
        self.commander.add(service)
        contract = contract or contract_of(service)
        if self._services.setdefault(contract, service) is not service:
            raise DefinitionError(
                f"There is a service for {contract.__qualname__} already: "
                f"{self._services[contract]!r}."
            )
        if is_served:
            try:
                self.hub.serve(contract, service, name=name)
            except DefinitionError:
                del self._services[contract]
                raise
        return service

    def service(self, contract: type[S], url: str | None = None, *, format: str = "msgpack6c") -> S:
        """Return the service to use for a contract: one that was added, or a remote one.

        Whoever uses it need not know which. A remote one must be asked for in a running event loop.

        Args:
            contract: the class.
            url: where it lives, if it was not added.
            format: how messages are written to there.

        Raises:
            LookupError: none was added, and no address was given.
        """
        found: S | None = self._services.get(contract)
        if found is not None:
            return found
        if url is None:
            raise LookupError(
                f"There is no service for {contract.__qualname__}: add() one, or say at which url "
                "it lives."
            )
        return self.commander.add(self.hub.client_peer(url, format=format).service(contract))

    def call(self, command: CommandOf[S]) -> Coroutine[Any, Any, S]:
        """Handle a command, here or where its service lives, and return its result; await it.

        Called in a handler, it is nested: it shares what the outermost command has.

        Raises:
            HandlerNotFoundError: no service that was added, or asked for, handles such commands.
        """
        return self.commander.call(command)

    # -- life

    def asgi(self, **options: Any) -> Starlette:
        """Return an ASGI app that serves this program, to run or to mount into another one.

        It has "/rpc/ws", where clients connect, "/afresh/afresh.js", the module for browsers, and
        "/health". The options are those of `afresh.web.asgi_app`.

        Raises:
            ImportError: Starlette is not installed.
        """
        from afresh.web.asgi import asgi_app

        return asgi_app(self, **options)

    def health(self) -> dict[str, Any]:
        """Return how the program is: "status" is "ok" if all is well."""
        peers = self.hub.peers
        return {
            "status": "closed" if self.hub.is_closed else "ok",
            "peers": {
                "known": len(peers),
                "connected": sum(peer.is_connected for peer in peers),
            },
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all connections, and what runs for them; commands that were started are cancelled."""
        await self.commander.aclose()
        await self.hub.aclose()
        if self._cache is not None:
            await self._cache.aclose()

    def __repr__(self) -> str:
        names = ", ".join(contract.__name__ for contract in self._services)
        return f"<App of {names or 'nothing yet'}>"
