"""The results of one remote compute method: nodes of this graph whose values come from elsewhere.

A hit is a hit, no different from a local one. A miss asks the other side, whose answer is live: it
goes stale here when it does there. With a cache, a miss that was answered in an earlier life of the
process is served from it at once, and confirmed behind the caller's back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from afresh.graph._context import current
from afresh.graph.definition import Definition
from afresh.graph.synchronizer import Synchronization
from afresh.graph.table import Table
from afresh.rpc.outbound import OutboundMethod

from .cache import CacheEntry, CacheKey, RemoteCache, metrics
from .call import ComputeCall
from .guess import Guess

if TYPE_CHECKING:
    from afresh.graph.computed import Computed
    from afresh.rpc.peer import Peer

__all__ = ["RemoteTable"]

_log = logging.getLogger("afresh.remote")

_MOST_OUTDATED = 65_536
"""For how many results it is remembered that the cache's version is known to be out of date."""


class RemoteTable(Table):
    """The results of one compute method of a remote service.

    Args:
        definition: the compute method of the contract.
        instance: the remote service.
        method: how to call it.
        peer: whom to call.
        cache: what keeps results beyond the life of the process.
    """

    __slots__ = ("_outdated", "_unconfirmed", "cache", "fetched", "method", "peer")

    def __init__(
        self,
        definition: Definition,
        instance: Any,
        method: OutboundMethod,
        peer: Peer,
        cache: RemoteCache | None,
    ) -> None:
        # When results expire is up to the other side, which tells.
        options = definition.options.replace(
            auto_invalidate=float("inf"),
            invalidation_delay=0.0,
            consolidate=float("inf"),
            equals=None,
        )
        super().__init__(definition, instance, options)
        self.body = self._fetch
        self.is_observed = True
        self.method: OutboundMethod = method
        self.peer: Peer = peer
        self.cache: RemoteCache | None = cache
        self.fetched: dict[Any, ComputeCall] = {}
        """Answers that were fetched behind the back of a result, for the next one to begin with."""
        self._outdated: dict[Any, None] = {}
        self._unconfirmed: dict[Any, asyncio.Event] = {}

    # -- computing

    async def _fetch(self, *args: Any) -> Any:
        node: Computed[Any] = current.get()
        fetched = self.fetched.pop(node.key, None)
        if fetched is not None:
            return await self._result(node, fetched)
        arguments = self.method.encode(self.peer, args)
        if self.cache is None:
            return await self._call(node, ComputeCall(self.peer, self.method, arguments))
        key = CacheKey(self.method.name, arguments, self.peer.format.key)
        known = await self.cache.get_value(key, lambda data: self.method.decode(self.peer, data))
        if known is None:
            return await self._call(node, ComputeCall(self.peer, self.method, arguments, key))
        entry, value = known
        if node.key not in self._outdated:
            node._with_extra().origin = Guess(self, arguments, entry)
            return value
        if not self.peer.is_connected:
            metrics.record_stale_value("connection_check")
        elif await self._answer_or_disconnect(node, arguments, entry):
            return await self._result(node, node._with_extra().origin)
        else:
            metrics.record_stale_value("active_call")
        node._with_extra().origin = Guess(self, arguments, entry, is_outdated=True)
        return value

    async def _call(self, node: Computed[Any], call: ComputeCall) -> Any:
        self.peer.start(call)
        return await self._result(node, call)

    async def _result(self, node: Computed[Any], call: ComputeCall) -> Any:
        """Return the result of a call, which `node` is from now on the result of."""
        try:
            value = await call.future
        except asyncio.CancelledError:
            call.cancel()
            raise
        except Exception:
            node._with_extra().origin = call
            self.remember(call, failed=True)
            raise
        node._with_extra().origin = call
        self.remember(call)
        return value

    async def _answer_or_disconnect(
        self, node: Computed[Any], arguments: bytes, entry: CacheEntry
    ) -> bool:
        """Make a call; false if the connection was lost before its answer came."""
        call = ComputeCall(self.peer, self.method, arguments, entry.key, entry)
        lost: asyncio.Future[None] = self.peer.loop.create_future()
        stop = self.peer.on_connection_change(
            lambda state: None if state.is_connected or lost.done() else lost.set_result(None)
        )
        self.peer.start(call)
        try:
            await asyncio.wait((call.future, lost), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            stop()
        if call.future.done():
            node._with_extra().origin = call
            return True
        call.cancel()
        return False

    def remember(self, call: ComputeCall, *, failed: bool = False) -> None:
        """Let the cache know of an answer."""
        if self.cache is None or call.key is None or not call.is_answered:
            return
        if failed:
            self.cache.remove(call.key)
        elif not call.is_match:
            self.cache.set(CacheEntry(call.key, call.data, call.hash))
        call.data = b""

    # -- hooks of the graph

    def published(self, node: Computed[Any]) -> None:
        extra = node.extra
        origin = None if extra is None else extra.origin
        if origin is None:
            return
        if isinstance(origin, ComputeCall):
            self._outdated.pop(node.key, None)
            self.confirm(node.key)
        origin.bind(node)

    def forget(self, computed: Computed[Any]) -> None:
        super().forget(computed)
        if self.cache is not None:
            outdated = self._outdated
            outdated.pop(computed.key, None)
            outdated[computed.key] = None
            if len(outdated) > _MOST_OUTDATED:
                del outdated[next(iter(outdated))]

    def synchronization(self, computed: Computed[Any]) -> Synchronization | None:
        extra = computed.extra
        origin = None if extra is None else extra.origin
        if not isinstance(origin, Guess):
            return None
        return Synchronization(origin.confirmed.is_set, origin.wait_confirmed)

    def confirmation(self, key: Any) -> asyncio.Event:
        """Return what is set when a confirmed result for `key` is there."""
        event = self._unconfirmed.get(key)
        if event is None:
            event = self._unconfirmed[key] = asyncio.Event()
        return event

    def confirm(self, key: Any) -> None:
        """A confirmed result for `key` is there."""
        event = self._unconfirmed.pop(key, None)
        if event is not None:
            event.set()
