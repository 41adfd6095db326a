"""The results of one remote compute method: nodes of this graph whose values come from elsewhere.

A hit is a hit, no different from a local one. A miss asks the other side, whose answer is live: it
goes stale here when it does there. With a cache, a miss that was answered in an earlier life of the
process is served from it at once, and confirmed behind the caller's back.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from afresh.errors import RerouteError
from afresh.graph._context import current
from afresh.graph._kernel import invalidate
from afresh.graph.definition import Definition
from afresh.graph.synchronizer import Synchronization
from afresh.graph.table import Table
from afresh.rpc.outbound import OutboundMethod
from afresh.rpc.routes import Routes
from afresh.rpc.routing import Route, local_execution, reroute

from .cache import CacheEntry, CacheKey, RemoteCache, metrics
from .call import ComputeCall
from .guess import Guess

if TYPE_CHECKING:
    from afresh.graph.computed import Computed
    from afresh.rpc.contracts import MethodDefinition
    from afresh.rpc.peer import Peer

__all__ = ["RemoteTable", "RoutedTable", "Source"]

_MOST_OUTDATED = 65_536
"""For how many results it is remembered that the cache's version is known to be out of date."""


class Source(NamedTuple):
    """Where a result comes from."""

    peer: Peer
    """Whom to call."""
    method: OutboundMethod
    """What to call there."""
    route: Route | None = None
    """What led there; calls follow it."""

    def start(self, call: ComputeCall) -> None:
        """Make a call, which ends when the route changes."""
        self.peer.start(call)
        if self.route is not None:
            call.follow(self.route)


class RemoteTable(Table):
    """The results of one compute method of a remote service.

    Args:
        definition: the compute method of the contract.
        instance: the remote service.
        source: where the results come from; None where that differs from call to call.
        cache: what keeps results beyond the life of the process.
    """

    __slots__ = ("_outdated", "_source", "_unconfirmed", "cache", "fetched")

    def __init__(
        self,
        definition: Definition,
        instance: Any,
        source: Source | None,
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
        self.body: Callable[..., Any] = self._compute
        self.is_observed: bool = True
        self.cache: RemoteCache | None = cache
        self.fetched: dict[Any, ComputeCall] = {}
        """Answers that were fetched behind the back of a result, for the next one to begin with."""
        self._source = source
        self._outdated: dict[Any, None] = {}
        self._unconfirmed: dict[Any, asyncio.Event] = {}

    # -- computing

    async def _compute(self, *args: Any) -> Any:
        assert self._source is not None
        return await self._fetch(self._source, current.get(), args)

    async def _fetch(self, source: Source, node: Any, args: tuple[Any, ...]) -> Any:
        peer, method, _ = source
        fetched = self.fetched.pop(node.key, None)
        if fetched is not None and fetched.peer is peer:
            return await self._result(node, fetched)
        arguments = method.encode(peer, args)
        if self.cache is None:
            call = ComputeCall(peer, method, arguments)
            source.start(call)
            try:
                value = await call.future
            except asyncio.CancelledError:
                call.cancel()
                raise
            except Exception as error:
                self._note_failure(node, call, error)
                raise
            node._with_extra().origin = call
            return value
        key = CacheKey(method.name, arguments, peer.format.key)
        known = await self.cache.get_value(key, lambda data: method.decode(peer, data))
        if known is None:
            return await self._call(source, node, ComputeCall(peer, method, arguments, key))
        entry, value = known
        if node.key not in self._outdated:
            node._with_extra().origin = Guess(self, source, arguments, entry)
            return value
        if not peer.is_connected:
            metrics.record_stale_value("connection_check")
        else:
            call = ComputeCall(peer, method, arguments, key, entry)
            if await self._answer_or_disconnect(source, call):
                return await self._result(node, call)
            metrics.record_stale_value("active_call")
        node._with_extra().origin = Guess(self, source, arguments, entry, is_outdated=True)
        return value

    async def _call(self, source: Source, node: Computed[Any], call: ComputeCall) -> Any:
        source.start(call)
        return await self._result(node, call)

    async def _result(self, node: Computed[Any], call: ComputeCall) -> Any:
        """Return the result of a call, which `node` is from now on the result of."""
        try:
            value = await call.future
        except asyncio.CancelledError:
            call.cancel()
            raise
        except Exception as error:
            self._note_failure(node, call, error)
            raise
        node._with_extra().origin = call
        self.remember(call)
        return value

    def _note_failure(self, node: Computed[Any], call: ComputeCall, error: Exception) -> None:
        if isinstance(error, RerouteError):
            call.let_go()  # the result will be another call's
            return
        node._with_extra().origin = call
        self.remember(call, failed=True)
        call.forget_error()

    async def _answer_or_disconnect(self, source: Source, call: ComputeCall) -> bool:
        """Make a call; false if the connection was lost before its answer came."""
        peer = source.peer
        lost: asyncio.Future[None] = peer.loop.create_future()
        stop = peer.on_connection_change(
            lambda state: None if state.is_connected or lost.done() else lost.set_result(None)
        )
        source.start(call)
        try:
            await asyncio.wait((call.future, lost), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            stop()
        if call.future.done():
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


class RoutedTable(RemoteTable):
    """The results of one compute method of a service whose calls go to several peers, this process
    perhaps among them.

    Args:
        definition: the compute method of the contract.
        instance: the routed service.
        method: the same method, as it is called.
        routes: say where each call goes.
        cache: what keeps results beyond the life of the process.
    """

    __slots__ = ("_local", "_method", "_routes")

    def __init__(
        self,
        definition: Definition,
        instance: Any,
        method: MethodDefinition,
        routes: Routes,
        cache: RemoteCache | None,
    ) -> None:
        super().__init__(definition, instance, None, cache)
        self._method = method
        self._routes = routes
        self._local = None if routes.local is None else method.of(routes.local)

    async def _compute(self, *args: Any) -> Any:
        node: Any = current.get()
        routes = self._routes
        return await reroute(
            routes.router,
            self._method,
            args,
            lambda route: self._along(route, node, args),
            delays=routes.delays,
        )

    async def _along(self, route: Route | None, node: Any, args: tuple[Any, ...]) -> Any:
        routes = self._routes
        if route is not None and route.is_local:
            if self._local is None:
                raise routes.not_local(self._method)
            async with local_execution(route, routes.mode(self._method)):
                value = await self._local(*args)
            if not route.is_static:
                _go_stale_with(route, node)
            return value
        peer = routes.peer_at(route)
        method = routes.method(self._method, peer, self._method.kind.id)
        return await self._fetch(Source(peer, method, route), node, args)


def _go_stale_with(route: Route, node: Computed[Any]) -> None:
    """Make `node` stale when the route changes, without keeping it in memory until then."""

    def invalidate_node(_: Route) -> None:
        living = reference()
        if living is not None:
            invalidate(living, "its route has changed", True)

    reference = weakref.ref(node, lambda _: stop())
    stop = route.on_changed(invalidate_node)
