"""The calling side of one compute call: it lives on after the answer, until the result is stale."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import TYPE_CHECKING, Any

from afresh.graph._kernel import invalidate
from afresh.rpc.outbound import Headers, OutboundCall, OutboundMethod

from .cache import CacheEntry, CacheKey
from .subscription import HASH

if TYPE_CHECKING:
    from afresh.graph.computed import Computed
    from afresh.rpc.exceptions import ExceptionInfo
    from afresh.rpc.peer import Peer

__all__ = ["ComputeCall"]

STALE_THERE = "the other side says that it is stale"
CONNECTION = "the connection to the other side"


class ComputeCall(OutboundCall):
    """A call whose result is live: the other side tells when it is stale.

    It does not keep the result in memory. When nobody else does, or when the result goes stale on
    this side, the other side is told that nobody listens any more.

    Args:
        peer: whom to call.
        method: what to call there.
        arguments: the encoded arguments.
        key: under which the answer goes to a cache; None if it does not.
        entry: the result that the cache has already, if any.
    """

    __slots__ = (
        "_node",
        "_thread",
        "data",
        "entry",
        "hash",
        "is_answered",
        "is_match",
        "is_stale",
        "key",
    )

    def __init__(
        self,
        peer: Peer,
        method: OutboundMethod,
        arguments: bytes,
        key: CacheKey | None = None,
        entry: CacheEntry | None = None,
    ) -> None:
        headers: Headers = ()
        if key is not None:
            headers = ((HASH, entry.hash if entry is not None else ""),)
        super().__init__(peer, method, arguments, headers)
        self.key: CacheKey | None = key
        self.entry: CacheEntry | None = entry
        self.is_answered: bool = False
        """Whether value or error came."""
        self.is_stale: bool = False
        """Whether the result is known to be stale."""
        self.is_match: bool = False
        """Whether the result is the one of `entry`."""
        self.data: bytes = b""
        """The argument section of the answer, if the answer is going to a cache."""
        self.hash: str = ""
        """What the other side calls the result."""
        self._node: weakref.ref[Computed[Any]] | None = None
        self._thread = threading.get_ident()

    @property
    def stage(self) -> int:
        return 1 if self.is_answered else 0

    # -- what may happen to it

    def answered(self, arguments: bytes, headers: Headers) -> None:
        if self.is_answered:
            return
        if self.key is not None:
            self.data = arguments
            self.hash = next((value for name, value in headers if name == HASH), "")
            self.is_match = self.entry is not None and self.entry.matches(arguments, self.hash)
        self._decode(arguments)

    def matched(self) -> None:
        if self.entry is None or self.is_answered:
            super().matched()
            return
        self.is_match = True
        self.data = self.entry.data
        self.hash = self.entry.hash
        self._decode(self.entry.data)

    def _decode(self, arguments: bytes) -> None:
        try:
            value = self.method.decode(self.peer, arguments)
        except Exception as error:
            self.let_go()
            self.fail(error)
            return
        self._note_answer()
        if not self.future.done():
            self.future.set_result(value)

    def refused(self, info: ExceptionInfo) -> None:
        if self.is_answered:
            return
        if info.is_cancellation:
            self._finish()
            self.future.cancel()  # who computes tries again
            return
        self._note_answer()
        if not self.future.done():
            self.future.set_exception(self.peer.hub.exceptions.restore(info))

    def invalidated(self) -> None:
        """The result is stale: the other side says so, or must be taken to."""
        self._stale(STALE_THERE)

    def resumed(self, is_known: bool) -> None:
        if not self.is_answered:
            super().resumed(is_known)
        elif not is_known:
            self._stale(f"{CONNECTION} was lost meanwhile")

    def peer_changed(self) -> None:
        if self.is_answered:
            self._stale(f"{CONNECTION} leads to another peer now")
        else:
            super().peer_changed()

    def fail(self, error: BaseException) -> None:
        if self.is_answered:
            self._stale(f"{CONNECTION} ended")
        else:
            super().fail(error)

    def _note_answer(self) -> None:
        self.is_answered = True
        self.arguments = b""  # never sent again
        self.set_deadline(float("inf"), "")

    def _stale(self, why: str) -> None:
        self.is_stale = True
        self._finish()
        if not self.is_answered:
            self.future.cancel()  # who computes tries again
            return
        node = self._node() if self._node is not None else None
        if node is not None:
            invalidate(node, why, True)

    def forget_error(self) -> None:
        """The error was raised: its traceback leads to the result, which must not live by it."""
        self.future: asyncio.Future[Any] = self.peer.loop.create_future()

    # -- the result on this side

    def bind(self, node: Computed[Any]) -> None:
        """From now on the result is `node`."""
        if self.is_stale:
            invalidate(node, STALE_THERE, True)
        elif self.peer.outbound.get(self.id) is self:
            self._node = weakref.ref(node, self._note_collected)
            node._add_handler(self)

    @property
    def is_synchronized(self) -> bool:
        """Whether the result is what the other side has; as far as is known."""
        return self.is_answered

    is_weak = True
    """As a handler it does not keep the result."""

    def __call__(self, node: Computed[Any]) -> None:
        """The result went stale on this side."""
        self.let_go()

    def _note_collected(self, reference: object) -> None:
        if threading.get_ident() == self._thread:
            self.let_go()
        elif not self.peer.loop.is_closed():
            self.peer.loop.call_soon_threadsafe(self.let_go)
