"""Synchronizers: is this result confirmed, or only assumed to be still right?

A result can be shown before it is confirmed: the initial value of a state, later also a value that
a client kept from its last run. Every result that is computed from such a one is unconfirmed too. A
synchronizer says which results count as confirmed, and waits for those that do not. The one in
force is ambient; by default everything counts as confirmed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from afresh.primitives.clock import current_clock

if TYPE_CHECKING:
    from .computed import Computed

__all__ = ["NO_SYNCHRONIZER", "PRECISE", "SafeSynchronizer", "Synchronizer", "current_synchronizer"]

T = TypeVar("T")


class Synchronizer:
    """Tells confirmed results from assumed ones.

    Args:
        max_updates: how many times `synchronize` replaces a result that went stale meanwhile.
    """

    def __init__(self, max_updates: int = 1) -> None:
        self.max_updates = max_updates

    def is_synchronized(self, computed: Computed[Any]) -> bool:
        """Whether a result, and all that it was computed from, is confirmed."""
        pending = [computed]
        seen: set[int] = set()
        while pending:
            node = pending.pop()
            if node.version in seen:
                continue
            seen.add(node.version)
            source = node.keeper.synchronization(node)
            if source is None:
                pending += _parts(node)
            elif not self.accepts(source):
                return False
        return True

    def accepts(self, source: Synchronization) -> bool:
        """Whether a single source counts as confirmed."""
        return source.is_done()

    async def when_synchronized(self, computed: Computed[Any]) -> None:
        """Return when a result, and all that it was computed from, is confirmed."""
        pending = [computed]
        seen: set[int] = set()
        while pending:
            node = pending.pop()
            if node.version in seen:
                continue
            seen.add(node.version)
            source = node.keeper.synchronization(node)
            if source is None:
                pending += _parts(node)
            elif not self.accepts(source):
                await self.wait_for(source)

    async def wait_for(self, source: Synchronization) -> None:
        """Return when a single source is confirmed."""
        await source.wait()

    async def synchronize(self, computed: Computed[T]) -> Computed[T]:
        """Return a confirmed result: this one, or its successor if it went stale meanwhile."""
        updates = 0
        while True:
            await self.when_synchronized(computed)
            if computed.is_consistent or updates >= self.max_updates:
                return computed
            computed = await computed.update()
            updates += 1

    @contextlib.contextmanager
    def activate(self) -> Iterator[Synchronizer]:
        """Put this synchronizer in force for a ``with`` block and the tasks started there."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)


class _NoSynchronizer(Synchronizer):
    def is_synchronized(self, computed: Computed[Any]) -> bool:
        return True

    async def when_synchronized(self, computed: Computed[Any]) -> None:
        return


class SafeSynchronizer(Synchronizer):
    """Waits for confirmation, but not for ever, and not where none can come.

    Args:
        max_duration: seconds to wait, after which everything counts as confirmed; None waits
            without limit, zero or less does not wait.
        assumes: called with a source that is not confirmed; True lets it count as confirmed, for
            example because there is no connection.
        max_updates: see `Synchronizer`.
    """

    def __init__(
        self,
        max_duration: float | None = 5.0,
        *,
        assumes: Callable[[Synchronization], bool] | None = None,
        max_updates: int = 1,
    ) -> None:
        super().__init__(max_updates)
        self.max_duration = max_duration
        self._assumes = assumes

    def accepts(self, source: Synchronization) -> bool:
        return source.is_done() or (self._assumes is not None and self._assumes(source))

    async def when_synchronized(self, computed: Computed[Any]) -> None:
        if self.max_duration is None:
            await super().when_synchronized(computed)
            return
        if self.max_duration <= 0 or self.is_synchronized(computed):
            return
        waiting = asyncio.ensure_future(super().when_synchronized(computed))
        timer = asyncio.ensure_future(current_clock().sleep(self.max_duration))
        try:
            await asyncio.wait({waiting, timer}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
        finally:
            waiting.cancel()
            timer.cancel()
            await asyncio.wait({waiting, timer})
            if not waiting.cancelled():
                waiting.exception()  # has been raised above, or comes too late to matter


class Synchronization:
    """Whether one source of data is confirmed: what `Producer.synchronization` returns.

    Args:
        is_done: whether it is confirmed now.
        wait: returns when it is.
    """

    __slots__ = ("is_done", "wait")

    def __init__(self, is_done: Callable[[], bool], wait: Callable[[], Awaitable[None]]) -> None:
        self.is_done: Callable[[], bool] = is_done
        self.wait: Callable[[], Awaitable[None]] = wait


def _parts(node: Computed[Any]) -> list[Computed[Any]]:
    consolidation = node.consolidation
    return [consolidation.source] if consolidation is not None else list(node.dependencies)


NO_SYNCHRONIZER: Synchronizer = _NoSynchronizer(max_updates=0)
"""Everything counts as confirmed."""

PRECISE = Synchronizer()
"""Only what is confirmed counts, however long that takes."""

_current: ContextVar[Synchronizer] = ContextVar("afresh.synchronizer", default=NO_SYNCHRONIZER)


def current_synchronizer() -> Synchronizer:
    """The synchronizer in force."""
    return _current.get()
