"""How calls of one kind are made and served. Plain ones are here; others come from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .contracts import REGULAR, CallKind, MethodDefinition
from .inbound import ServedMethod
from .middleware import Request, around
from .outbound import OutboundCall, OutboundMethod
from .routes import Routes
from .routing import Route, local_execution, reroute

if TYPE_CHECKING:
    from .formats import Format
    from .hub import RpcHub
    from .peer import Peer
    from .system import SystemHandler

__all__ = ["REGULAR_CALLS", "CallSupport"]


class CallSupport:
    """Makes and serves the calls of one kind; this one those of `REGULAR`."""

    kind: CallKind = REGULAR

    system_calls: Mapping[str, Callable[[Peer], SystemHandler]] = {}
    """System calls that this kind needs: by name, what makes the handler for a peer."""

    def served(
        self, hub: RpcHub, definition: MethodDefinition, implementation: object, format: Format
    ) -> ServedMethod:
        """Return the method as it is served to calls of this kind."""
        return ServedMethod(definition, definition.of(implementation), format, hub.records)

    def attach(self, service: Any, definition: MethodDefinition, to: Peer | Routes) -> None:
        """Give `service`, an object of the contract, the method that makes the calls.

        Args:
            service: the object.
            definition: the method.
            to: the peer to call, or what finds it for each call.
        """
        if isinstance(to, Routes):
            function = _routed(definition, to)
        else:
            function = _direct(definition, to)
        function.__name__ = definition.name
        function.__qualname__ = f"{definition.service.contract.__qualname__}.{definition.name}"
        function.__doc__ = definition.function.__doc__
        vars(service)[definition.name] = function


REGULAR_CALLS = CallSupport()


def _direct(definition: MethodDefinition, peer: Peer) -> Callable[..., Any]:
    """Return an async function that calls `peer`."""
    method = OutboundMethod(definition, peer.format, peer.hub.records)
    bind = definition.bind
    if definition.is_no_wait or peer.hub.outbound_middleware:

        async def make(request: Request) -> Any:
            return await _call(method, request)

        proceed = around(peer.hub.outbound_middleware, make)

        async def layered(*args: Any, **kwargs: Any) -> Any:
            return await proceed(Request(peer, definition, bind(args, kwargs)))

        return layered

    async def remote(*args: Any, **kwargs: Any) -> Any:
        call = OutboundCall(peer, method, method.encode(peer, bind(args, kwargs)))
        peer.start(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            call.cancel()
            raise

    return remote


def _routed(definition: MethodDefinition, routes: Routes) -> Callable[..., Any]:
    """Return an async function that calls whatever peer the router says."""
    middleware = routes.hub.outbound_middleware
    local = None if routes.local is None else definition.of(routes.local)

    async def remote(*args: Any, **kwargs: Any) -> Any:
        values = definition.bind(args, kwargs)

        async def attempt(route: Route | None) -> Any:
            if route is not None and route.is_local:
                if local is None:
                    raise routes.not_local(definition)
                async with local_execution(route, routes.mode(definition)):
                    return await local(*values)
            peer = routes.peer_at(route)
            method = routes.method(definition, peer, 0)
            proceed = around(middleware, lambda request: _call(method, request, route))
            return await proceed(Request(peer, definition, values))

        return await reroute(routes.router, definition, values, attempt, delays=routes.delays)

    return remote


async def _call(method: OutboundMethod, request: Request, route: Route | None = None) -> Any:
    peer = request.peer
    arguments = method.encode(peer, request.args)
    if method.definition.is_no_wait:
        headers = request.headers
        if peer.unconfirmed:
            headers = list(peer.with_freshness(headers))
        peer.send(method.write(0, arguments, headers))
        return None
    call = OutboundCall(peer, method, arguments, request.headers)
    peer.start(call)
    if route is not None:
        call.follow(route)
    try:
        return await call.future
    except asyncio.CancelledError:
        call.cancel()
        raise
