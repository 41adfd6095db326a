"""Watching the graph at work: what is computed, found, and made stale, and why.

For tools: monitors, inspectors, tests. Nothing is paid for as long as nobody observes, and hits are
sampled, because telling of each would cost more than the hit itself.
"""

from __future__ import annotations

import enum
import logging
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from afresh.primitives.handlers import Handlers

from . import _kernel
from .causes import InvalidationCause
from .computed import Computed

__all__ = ["GraphEvent", "GraphEventKind", "observe"]


class GraphEventKind(enum.Flag):
    """What may happen to a result."""

    COMPUTED = enum.auto()
    """It is there, for the first time."""
    HIT = enum.auto()
    """A call found it."""
    INVALIDATED = enum.auto()
    """It went stale."""


@dataclass(frozen=True, slots=True)
class GraphEvent:
    """What happened to a result.

    Handlers must not keep it: it holds the result, and so all that this was computed from.
    """

    kind: GraphEventKind
    computed: Computed[Any]
    """The result it happened to."""
    duration: float | None = None
    """For COMPUTED: seconds from the start of the body to the result, if it began while somebody
    observed."""
    weight: int = 1
    """How many events this one stands for: more than 1 for sampled hits."""

    @property
    def cause(self) -> InvalidationCause | None:
        """For INVALIDATED: why."""
        if self.kind is not GraphEventKind.INVALIDATED:
            return None
        return self.computed.invalidation_cause


def observe(
    handler: Callable[[GraphEvent], object],
    kinds: GraphEventKind = GraphEventKind.COMPUTED | GraphEventKind.INVALIDATED,
    *,
    sample_hits: int = 8,
) -> Callable[[], None]:
    """Call `handler` with what happens in the graph, until the returned function is called.

    The handler runs inside the graph's work: it should be quick, and must not invalidate. An error
    in it is logged.

    Args:
        handler: called with each event.
        kinds: the kinds of events to tell of.
        sample_hits: tell of one hit in so many, if `kinds` has HIT; that event's `weight`.

    Example:
        ```python
        stop = observe(lambda event: print(event.kind, event.computed))
        ```
    """
    if sample_hits < 1:
        raise ValueError(f"sample_hits={sample_hits}: one hit in 1 or more can be told of.")

    def tell(event: GraphEvent) -> None:
        if event.kind in kinds:
            handler(event)

    return _observers.add(tell, sample_hits if GraphEventKind.HIT in kinds else None)


class _Observers:
    """All who observe, as the one observer that the kernel knows."""

    def __init__(self) -> None:
        self._handlers: Handlers[GraphEvent] = Handlers(logging.getLogger("afresh.graph"))
        self._hit_handlers: list[_SampledHits] = []
        self._started: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()

    def add(
        self, tell: Callable[[GraphEvent], object], sample_hits: int | None
    ) -> Callable[[], None]:
        remove = self._handlers.add(tell)
        hits = None if sample_hits is None else _SampledHits(tell, sample_hits)
        if hits is not None:
            self._hit_handlers.append(hits)
        self._configure()

        def stop() -> None:
            remove()
            if hits in self._hit_handlers:
                self._hit_handlers.remove(hits)
            self._configure()

        return stop

    def _configure(self) -> None:
        is_observed = len(self._handlers) > 0
        if not is_observed:
            self._started.clear()
        _kernel.configure(
            observer=self if is_observed else None,
            hit_sampler=self._hit if self._hit_handlers else None,
        )
        on_start[:] = [self._start] if is_observed else []

    def _start(self, computed: Any) -> None:
        self._started[computed] = time.perf_counter()

    def _hit(self, computed: Any) -> None:
        for hits in self._hit_handlers:
            hits.count(computed)

    def computed(self, computed: Any) -> None:
        started = self._started.pop(computed, None)
        duration = None if started is None else time.perf_counter() - started
        self._handlers.call(GraphEvent(GraphEventKind.COMPUTED, computed, duration))

    def invalidated(self, computed: Any) -> None:
        self._handlers.call(GraphEvent(GraphEventKind.INVALIDATED, computed))


class _SampledHits:
    def __init__(self, tell: Callable[[GraphEvent], object], every: int) -> None:
        self._tell = tell
        self._every = every
        self._left = every

    def count(self, computed: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._left = self._every
            self._tell(GraphEvent(GraphEventKind.HIT, computed, weight=self._every))


on_start: list[Callable[[Any], None]] = []
"""What is to be called when a body starts; a list so that looking is cheap."""

_observers = _Observers()
