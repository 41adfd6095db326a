"""The serving side: compute methods called from elsewhere, and who is to be told.

The result that a caller was given is held for as long as the caller holds it, and its going stale
is told once, after the answer. So what a client knows is always either fresh or about to be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from afresh.graph.bound import BoundComputeMethod
from afresh.graph.scopes import Isolated
from afresh.primitives.clock import current_clock
from afresh.rpc.formats import result_hash
from afresh.rpc.freshness import answer_headers
from afresh.rpc.inbound import InboundCall, ServedMethod

if TYPE_CHECKING:
    from afresh.graph.computed import Computed
    from afresh.rpc.contracts import MethodDefinition
    from afresh.rpc.formats import Format, RecordNaming, Writer
    from afresh.rpc.outbound import Headers
    from afresh.rpc.peer import Peer

__all__ = ["ServedComputeMethod", "Subscription"]

_ASK_AGAIN = 1.0
"""Seconds after which a failure that is no result is stale: arguments that can't be read, say."""

HASH = "#"
"""The header with the hash of a result; with an empty one a caller asks for it."""


class ServedComputeMethod(ServedMethod):
    """A compute method as it is served to compute calls in one format."""

    __slots__ = ("bound", "invalidate", "match")

    call_type = 1

    def __init__(
        self,
        definition: MethodDefinition,
        implementation: object,
        format: Format,
        records: RecordNaming,
    ) -> None:
        super().__init__(definition, definition.of(implementation), format, records)
        bound = getattr(implementation, definition.name)
        bound = getattr(bound, "bound", bound)
        self.bound: Any = bound if isinstance(bound, BoundComputeMethod) else None
        """None where the implementation does not cache what the contract says it does."""
        self.match: Writer = format.writer("$sys.M:0")
        self.invalidate: Writer = format.writer("$sys-c.Invalidate:0")

    def start(self, args: Sequence[Any]) -> Any:
        bound = self.bound
        if bound is None:
            return self.function(*args)
        key, values = bound._key(*args)
        return bound.table.compute(key, values, Isolated(), True)

    def succeed(self, peer: Peer, related_id: int, headers: Headers, value: Any) -> None:
        if self.bound is None:
            super().succeed(peer, related_id, headers, value)
            peer.send(self.invalidate(related_id, b""))
            return
        node: Computed[Any] = value
        if not related_id:
            return
        self.answer(peer, related_id, headers, node)
        if node.is_invalidated:
            peer.inbound.pop(related_id, None)
            peer.send(self.invalidate(related_id, b""))
        else:
            subscription = Subscription(peer, related_id, self, node, headers)
            peer.inbound[related_id] = subscription
            node.on_invalidated(subscription)

    def fail(self, peer: Peer, related_id: int, headers: Headers, error: BaseException) -> None:
        super().fail(peer, related_id, headers, error)
        if related_id:
            # There is no result whose going stale could be told; who follows it asks again.
            current_clock().call_later(
                _ASK_AGAIN, lambda: peer.send(self.invalidate(related_id, b""))
            )

    def answer(self, peer: Peer, related_id: int, headers: Headers, node: Computed[Any]) -> None:
        """Send the result, or that the caller has it already."""
        error = node.error
        if error is not None:
            peer.send_error(related_id, error, self.definition)
            return
        try:
            result = self.encode(peer, node.value)
        except Exception as failure:
            peer.send_error(related_id, failure, self.definition)
            return
        for name, known in headers:
            if name == HASH:
                actual = result_hash(result)
                told = answer_headers(headers)
                if actual == known:
                    peer.send(self.match(related_id, b"", told))
                else:
                    peer.send(self.ok(related_id, result, ((HASH, actual), *told)))
                return
        if headers:
            peer.send(self.ok(related_id, result, answer_headers(headers)))
        else:
            peer.send(self.ok(related_id, result))


class Subscription(InboundCall):
    """A caller that was given a result, and is to be told when that goes stale."""

    __slots__ = ("headers", "node")

    def __init__(
        self,
        peer: Peer,
        id: int,
        method: ServedComputeMethod,
        node: Computed[Any],
        headers: Headers,
    ) -> None:
        super().__init__(peer, id, method)
        self.node: Computed[Any] = node
        self.headers: Headers = headers

    def __call__(self, node: Computed[Any]) -> None:
        """The result went stale."""
        peer = self.peer
        if peer.inbound.pop(self.id, None) is self:
            method: Any = self.method
            peer.send(method.invalidate(self.id, b""))

    def cancel(self) -> None:
        super().cancel()
        self.node._remove_handler(self)

    def resume(self, stage: int) -> None:
        if stage == 0:  # the answer did not arrive
            method: Any = self.method
            method.answer(self.peer, self.id, self.headers, self.node)
