"""A result that was served from the cache, before the other side was asked.

It is as good as the cache. Behind the caller's back the other side is asked for the hash of its
result: the same, and the guess is confirmed and live from then on; another, and the guess goes
stale, with the right result there already for whoever asks next. One call, either way.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from afresh.errors import RpcError
from afresh.graph._kernel import invalidate
from afresh.primitives.tasks import start_background

from .cache import CacheEntry
from .call import ComputeCall

if TYPE_CHECKING:
    from afresh.graph.computed import Computed
    from afresh.rpc.peer import ConnectionState
    from afresh.rpc.routing import Route

    from .table import RemoteTable, Source

__all__ = ["Guess"]

_log = logging.getLogger("afresh.remote")

DIFFERS = "the other side has another result than the cache"
CONNECTED = "there is a connection again, over which to ask"
ROUTE = "its route has changed"


class Guess:
    """Where a result came from that is not confirmed.

    Args:
        table: the results it belongs to.
        source: whom to ask, and what.
        arguments: of the call that will confirm it.
        entry: what the cache had.
        is_outdated: the cache is known to be behind; nothing is asked, and the result is stale as
            soon as there is a connection.
    """

    __slots__ = (
        "_arguments",
        "_entry",
        "_is_outdated",
        "_node",
        "_source",
        "_stop",
        "_table",
        "_task",
        "_unfollow",
        "confirmed",
    )

    confirmed: asyncio.Event
    """Set when this result, or one that came after it, is confirmed."""

    def __init__(
        self,
        table: RemoteTable,
        source: Source,
        arguments: bytes,
        entry: CacheEntry,
        *,
        is_outdated: bool = False,
    ) -> None:
        self._table = table
        self._source = source
        self._arguments = arguments
        self._entry = entry
        self._is_outdated = is_outdated
        self._node: weakref.ref[Computed[Any]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop: Callable[[], None] | None = None
        self._unfollow: Callable[[], None] | None = None

    async def wait_confirmed(self) -> None:
        """Return when this result, or one that came after it, is confirmed."""
        await self.confirmed.wait()

    def bind(self, node: Computed[Any]) -> None:
        """The result is `node`."""
        self.confirmed = self._table.confirmation(node.key)
        self._node = weakref.ref(node, self)
        if self._is_outdated:
            peer = self._source.peer
            if peer.is_connected:
                invalidate(node, CONNECTED, True)
                return
            self._stop = peer.on_connection_change(self._note_connection)
            if self._source.route is not None:
                self._unfollow = self._source.route.on_changed(self._note_route)
        else:
            self._task = start_background(self._ask(node.key), name=f"confirm {node.describe()}")
        node.on_invalidated(self)

    is_weak = True
    """As a handler it does not keep the result."""

    def __call__(self, _: object) -> None:
        """The result is stale, or nobody holds it any more."""
        if self._stop is not None:
            self._stop()
        if self._unfollow is not None:
            self._unfollow()
        task = self._task
        if task is not None and not task.get_loop().is_closed():
            self._task = None
            task.get_loop().call_soon_threadsafe(task.cancel)

    def _note_connection(self, state: ConnectionState) -> None:
        node = self._node() if self._node is not None else None
        if state.is_connected and node is not None:
            invalidate(node, CONNECTED, True)

    def _note_route(self, _: Route) -> None:
        node = self._node() if self._node is not None else None
        if node is not None:
            invalidate(node, ROUTE, True)

    async def _ask(self, key: Any) -> None:
        table = self._table
        entry = self._entry
        peer, method, _ = self._source
        call = ComputeCall(peer, method, self._arguments, entry.key, entry)
        try:
            self._source.start(call)
            await asyncio.wait((call.future,))
        except asyncio.CancelledError:
            call.cancel()
            raise
        except RpcError as error:
            call.fail(error)
        self._task = None
        node = self._node() if self._node is not None else None
        if node is None or not node.is_consistent:
            call.let_go()
        elif call.future.cancelled() or not call.is_answered:
            invalidate(node, "it could not be confirmed", True)
        elif call.is_match:
            call.bind(node)
            table.confirm(key)
        else:
            table.fetched[key] = call
            invalidate(node, DIFFERS, True)
            await table.renew(node)
        if call.future.done() and not call.future.cancelled():
            call.future.exception()  # who reads the next result is told
