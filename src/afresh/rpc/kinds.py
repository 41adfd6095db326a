"""How calls of one kind are made and served. Plain ones are here; others come from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .contracts import REGULAR, CallKind, MethodDefinition
from .inbound import ServedMethod
from .middleware import Request, around
from .outbound import OutboundCall, OutboundMethod

if TYPE_CHECKING:
    from .formats import Format
    from .hub import RpcHub
    from .peer import Peer
    from .system import SystemHandler

__all__ = ["REGULAR_CALLS", "CallSupport", "answer_of"]


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

    def attach(self, service: Any, definition: MethodDefinition, peer: Peer) -> None:
        """Give `service`, an object of the contract, the method that calls the other side."""
        vars(service)[definition.name] = remote_method(definition, peer)


REGULAR_CALLS = CallSupport()


def remote_method(definition: MethodDefinition, peer: Peer) -> Callable[..., Any]:
    """Return an async function that makes a plain call to `peer`."""
    method = OutboundMethod(definition, peer.format, peer.hub.records)
    bind = definition.bind
    middleware = peer.hub.outbound_middleware

    if definition.is_no_wait:

        async def send(request: Request) -> None:
            message = method.write(0, method.encode(peer, request.args), request.headers)
            peer.send(message)

        proceed: Callable[[Request], Any] = send
    else:

        async def make(request: Request) -> Any:
            arguments = method.encode(peer, request.args)
            call = OutboundCall(peer, method, arguments, request.headers)
            peer.start(call)
            return await answer_of(call)

        proceed = make

    if middleware or definition.is_no_wait:
        proceed = around(middleware, proceed)

        async def remote(*args: Any, **kwargs: Any) -> Any:
            return await proceed(Request(peer, definition, bind(args, kwargs)))
    else:

        async def remote(*args: Any, **kwargs: Any) -> Any:
            call = OutboundCall(peer, method, method.encode(peer, bind(args, kwargs)))
            peer.start(call)
            try:
                return await call.future
            except asyncio.CancelledError:
                call.cancel()
                raise

    remote.__name__ = definition.name
    remote.__qualname__ = f"{definition.service.contract.__qualname__}.{definition.name}"
    remote.__doc__ = definition.function.__doc__
    return remote


async def answer_of(call: OutboundCall) -> Any:
    """Return the result of a call that was started; if the caller is cancelled, so is the call."""
    try:
        return await call.future
    except asyncio.CancelledError:
        call.cancel()
        raise
