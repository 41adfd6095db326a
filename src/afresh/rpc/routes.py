"""What a routed service needs to make its calls: the router, and how peers are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afresh.errors import InvalidStateError
from afresh.primitives.delays import RetryDelays

from .outbound import OutboundMethod
from .routing import REROUTE_DELAYS, ExecutionMode, Route, Router

if TYPE_CHECKING:
    from .client_peer import ClientPeer
    from .contracts import MethodDefinition
    from .hub import RpcHub
    from .peer import Peer

__all__ = ["Routes"]


class Routes:
    """The ways from a routed service to the peers that its calls go to.

    Args:
        hub: makes the peers.
        router: says for each call where it goes.
        default: the address of calls for which the router has no answer; None if there is none.
        local: runs the calls whose target is this process; None if there is nothing here to run.
        format: how messages are written.
        delays: seconds before a call that was rerouted asks again.
    """

    __slots__ = ("_methods", "default", "delays", "format", "hub", "local", "router")

    def __init__(
        self,
        hub: RpcHub,
        router: Router,
        *,
        default: str | None = None,
        local: object | None = None,
        format: str = "msgpack6c",
        delays: RetryDelays = REROUTE_DELAYS,
    ) -> None:
        self.hub: RpcHub = hub
        self.router: Router = router
        self.default: str | None = default
        self.local: object | None = local
        self.format: str = format
        self.delays: RetryDelays = delays
        self._methods: dict[tuple[MethodDefinition, int], OutboundMethod] = {}

    def peer_at(self, route: Route | None) -> ClientPeer:
        """Return the peer that a route leads to; None is the default.

        Raises:
            InvalidStateError: there is no default.
        """
        url = self.default if route is None else route.peer_url
        if url is None:
            raise InvalidStateError(
                "The router has no target for this call, and there is no default peer; say "
                "default=… where the routed service is made."
            )
        return self.hub.client_peer(url, format=self.format, is_kept=url == self.default)

    def method(self, definition: MethodDefinition, peer: Peer, call_type: int) -> OutboundMethod:
        """Return the method as it is called on `peer`."""
        key = definition, call_type
        found = self._methods.get(key)
        if found is None:
            found = OutboundMethod(definition, peer.format, self.hub.records, call_type)
            self._methods[key] = found
        return found

    def mode(self, definition: MethodDefinition) -> ExecutionMode:
        """Return how calls that run in this process take a change of their route."""
        return ExecutionMode.default(
            is_compute=definition.kind.id == 1, is_distributed=self.local is not None
        )

    def not_local(self, definition: MethodDefinition) -> InvalidStateError:
        """Return the error for a call that was sent to this process, where nothing runs it."""
        return InvalidStateError(
            f"{definition.wire_name} was routed to this process, which has no implementation; say "
            "local=… where the routed service is made."
        )

    def __repr__(self) -> str:
        return f"<Routes of {self.hub!r}, default {self.default}>"
