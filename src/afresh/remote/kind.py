"""Compute calls as a kind of RPC: how they are recognized, served, and made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from afresh.graph._kernel import Method
from afresh.rpc.contracts import SURVIVE_PEER_CHANGE, WAIT_FOR_CONNECTION, CallKind
from afresh.rpc.kinds import CallSupport
from afresh.rpc.outbound import OutboundMethod
from afresh.rpc.routes import Routes

from .cache import RemoteCache
from .call import ComputeCall
from .subscription import ServedComputeMethod
from .table import RemoteTable, RoutedTable, Source

if TYPE_CHECKING:
    from afresh.rpc.contracts import MethodDefinition
    from afresh.rpc.formats import Format
    from afresh.rpc.hub import RpcHub
    from afresh.rpc.inbound import ServedMethod
    from afresh.rpc.outbound import Headers
    from afresh.rpc.peer import Peer
    from afresh.rpc.system import SystemHandler

__all__ = ["COMPUTE", "ComputeCalls", "ComputeKind"]


class ComputeKind(CallKind):
    """Calls of compute methods."""

    id = 1
    name = "compute"
    flags: int | None = WAIT_FOR_CONNECTION | SURVIVE_PEER_CHANGE

    def function_of(self, attribute: object) -> Callable[..., Any] | None:
        if isinstance(attribute, Method):
            function: Callable[..., Any] = attribute.definition.function
            return function
        return None


COMPUTE: CallKind = ComputeKind()


class ComputeCalls(CallSupport):
    """Makes and serves compute calls.

    Args:
        cache: keeps results that came from the other side beyond the life of the process.
    """

    kind: CallKind = COMPUTE

    def __init__(self, cache: RemoteCache | None = None) -> None:
        self.cache: RemoteCache | None = cache
        self.system_calls: Mapping[str, Callable[[Peer], SystemHandler]] = {
            "$sys-c.Invalidate:0": _invalidate
        }

    def served(
        self, hub: RpcHub, definition: MethodDefinition, implementation: object, format: Format
    ) -> ServedMethod:
        return ServedComputeMethod(definition, implementation, format, hub.records)

    def attach(self, service: Any, definition: MethodDefinition, to: Peer | Routes) -> None:
        declared = getattr(type(service), definition.name).definition
        if isinstance(to, Routes):
            table: RemoteTable = RoutedTable(declared, service, definition, to, self.cache)
        else:
            method = OutboundMethod(definition, to.format, to.hub.records, self.kind.id)
            table = RemoteTable(declared, service, Source(to, method), self.cache)
        declared.put_table(service, table)


def _invalidate(peer: Peer) -> SystemHandler:
    """What is to be done when the other side says that a result is stale."""
    outbound = peer.outbound

    def invalidate(related_id: int, arguments: bytes, headers: Headers) -> None:
        call = outbound.get(related_id)
        if isinstance(call, ComputeCall):
            call.invalidated()

    return invalidate
