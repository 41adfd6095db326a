"""Consolidation: when a result goes stale, see first whether the new one differs.

A consolidating compute method keeps two results for each call. The *source* is the ordinary one; it
is hidden, and what is invalidated. The *target* is what callers get and depend on. When the source
goes stale it is computed anew after a delay; an equal result becomes the target's new source, and
nobody is told. Otherwise, or when anything fails, the target goes stale too.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import math
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from afresh.primitives.clock import current_clock
from afresh.primitives.tasks import start_background

from . import _kernel, causes
from ._context import CONSISTENT, current
from .computed import Computed
from .options import CancellationReprocessing, ComputedOptions
from .producer import produce
from .scopes import Isolated
from .table import Table

if TYPE_CHECKING:
    from .definition import Definition

__all__ = ["ConsolidatingTable", "Consolidation"]


class Consolidation:
    """What ties a target to its source: ``computed.consolidation``.

    Attributes:
        source: the hidden result that the target shows.
        task: the comparison under way, or None.
    """

    __slots__ = ("_stop", "source", "task")

    source: Computed[Any]

    def __init__(self, source: Computed[Any]) -> None:
        self.source = source
        self.task: asyncio.Task[None] | None = None
        self._stop: Callable[[], None] | None = None

    def follow(self, target: Computed[Any]) -> None:
        """Wait for the source to go stale."""
        if self.source.state == CONSISTENT:
            self._stop = self.source.on_invalidated(_Follower(target))
        else:
            _kernel.invalidate(target, self.source.cause, True)

    def stop(self) -> None:
        """Wait no longer."""
        if self._stop is not None:
            self._stop()

    def source_is_stale(self, target: Computed[Any]) -> None:
        """Compare the target with a new source, in the background."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._tell(target)  # nothing can be compared without an event loop
            return
        self.task = start_background(
            lambda: self._compare(target), name=f"consolidation of {target.describe()}"
        )
        # Not in the task itself: one that is cancelled before its first step never gets to it.
        self.task.add_done_callback(
            lambda task: self._compared(target, task), context=contextvars.Context()
        )

    async def _compare(self, target: Computed[Any]) -> None:
        options: ComputedOptions = target.options
        while True:
            if options.consolidate > 0:
                await current_clock().sleep(options.consolidate)
            if target.state != CONSISTENT:
                return  # nobody waits for the outcome any more
            source = await self.source.update()
            if target.state != CONSISTENT:
                return
            if not _equal(target, source, options.equals):
                return
            self.source = source
            if source.state == CONSISTENT:
                self.task = None
                self.follow(target)
                return
            if options.consolidate == 0:
                return  # stale again already, and without a delay looking again might never end

    def _compared(self, target: Computed[Any], task: asyncio.Task[None]) -> None:
        if self.task is task:  # no equal and fresh source was found
            self._tell(target)

    def loop_is_gone(self, target: Computed[Any]) -> None:
        """Give up a comparison whose event loop was closed without ending it."""
        if self.task is not None and self.task.get_loop().is_closed():
            self._tell(target)

    def _tell(self, target: Computed[Any]) -> None:
        cause = self.source if causes.tracking() is causes.Tracking.CHAIN else self.source.cause
        _kernel.invalidate(target, cause, True)


def _equal(
    old: Computed[Any], new: Computed[Any], equals: Callable[[Any, Any], bool] | None
) -> bool:
    if old.error is not None or new.error is not None:
        return type(old.error) is type(new.error) and str(old.error) == str(new.error)
    if equals is not None:
        return bool(equals(old.value, new.value))
    return bool(old.value == new.value)


class _Follower:
    """The handler of a source. It refers to the target weakly, and to nothing else, so that neither
    of the two keeps the other's place in the cache.
    """

    __slots__ = ("_target",)

    source: Computed[Any]
    is_weak: bool = True  # as a handler, it keeps no result in memory

    def __init__(self, target: Computed[Any]) -> None:
        self._target = weakref.ref(target)

    def __call__(self, source: Computed[Any]) -> None:
        target = self._target()
        if target is None or target.state != CONSISTENT:
            return
        consolidation = target.consolidation
        if consolidation is not None and consolidation.source is source:
            consolidation.source_is_stale(target)


class ConsolidatingTable(Table):
    """The targets of a consolidating compute method, with a table of their sources behind."""

    __slots__ = ("source",)

    def __init__(self, definition: Definition, instance: Any, options: ComputedOptions) -> None:
        self.source: _SourceTable = _SourceTable(
            definition,
            instance,
            dataclasses.replace(options, consolidate=math.inf, equals=None, keep_alive=0.0),
        )
        super().__init__(
            definition,
            instance,
            dataclasses.replace(
                options,
                invalidation_delay=0.0,
                auto_invalidate=math.inf,
                transient_error_delay=math.inf,
                error_delay=math.inf,
                reprocessing=CancellationReprocessing(retries=0),
            ),
        )
        self.body: Callable[..., Awaitable[Any]] = self._show_source
        self.is_observed = True

    async def _show_source(self, *args: Any) -> Any:
        target: Computed[Any] = current.get()
        source = await produce(self.source, target.key, args, Isolated(), True)
        target._with_extra().consolidation = Consolidation(source)
        return source.value

    def published(self, computed: Computed[Any]) -> None:
        extra = computed.extra
        if extra is not None and extra.consolidation is not None:
            extra.consolidation.follow(computed)

    def loop_is_gone(self) -> None:
        super().loop_is_gone()
        for target in list(self.entries.values()):
            if target.consolidation is not None:
                target.consolidation.loop_is_gone(target)

    def forget(self, computed: Computed[Any]) -> None:
        super().forget(computed)
        if computed.consolidation is not None:
            computed.consolidation.stop()

    def expire(self, computed: Computed[Any]) -> None:
        """Targets go stale with their sources only; an error of their own has none."""
        if computed.extra is None or computed.extra.consolidation is None:
            super().expire(computed)

    def invalidate_key(self, key: Any, cause: Any) -> bool:
        # The source may be there, or be computed, without a target.
        source = self.source.existing(key)
        if source is not None:
            _kernel.invalidate(source, cause)
            return True
        return super().invalidate_key(key, cause)

    def invalidate_existing(self, computed: Computed[Any], cause: Any) -> None:
        source = self.source.existing(computed.key)
        if source is not None:
            _kernel.invalidate(source, cause)
        elif computed.consolidation is None:
            super().invalidate_existing(computed, cause)
        # Else the source is stale already, and a comparison under way.


class _SourceTable(Table):
    """The sources: ordinary results that no call returns."""

    __slots__ = ()

    @property
    def category(self) -> str:
        return f"~{super().category}"
