"""Who keeps results alive, and who lets them go.

Each service keeps its own results. The registry knows where they are, so that it can drop those
that nobody needs: a result leaves when it was not used for its method's `keep_alive` and nobody
holds it (no other result, no task, no variable). The same goes for the results it was computed
from. When more results are kept than the budget allows, the least recently used that nobody holds
leave at once.

Holding is told by reference counts: what only its service refers to is held by nobody.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from afresh.primitives.clock import Timer, current_clock, on_clock_change

from . import _kernel, causes

if TYPE_CHECKING:
    from .computed import Computed
    from .producer import Producer

__all__ = [
    "computed_count",
    "edges",
    "invalidate_everything",
    "node_budget",
    "nodes",
    "prune",
    "set_node_budget",
]

_log = logging.getLogger("afresh.graph")

DEFAULT_BUDGET = 1_000_000
SHORTEST_PERIOD = 0.2
"""Seconds between two looks at the results of one method, at least."""
SWEEPS_PER_KEEP_ALIVE = 4
SLICE = 5_000
"""Results looked at in one go; then other work gets its turn."""

_producers: weakref.WeakSet[Producer] = weakref.WeakSet()
"""All there are: compute methods of services, compute functions, states, computed sources."""
_tables: weakref.WeakSet[Producer] = weakref.WeakSet()
"""Those of compute methods and functions; the others keep nothing but their own latest result."""
_cohorts: dict[float, Cohort] = {}
_budget = DEFAULT_BUDGET


class Cohort:
    """All producers whose results are kept for the same time; they are swept together.

    Times of use are ticks of the kernel, so "unused for `keep_alive` seconds" is "not used since
    the tick that was noted at the sweep that long ago".
    """

    def __init__(self, keep_alive: float) -> None:
        self.period: float = max(keep_alive / SWEEPS_PER_KEEP_ALIVE, SHORTEST_PERIOD)
        self.producers: weakref.WeakSet[Producer] = weakref.WeakSet()
        self.threshold = math.inf if keep_alive == 0 else 0
        self._marks: deque[int] | None = None
        if keep_alive > 0:
            self._marks = deque(maxlen=math.ceil(keep_alive / self.period) + 1)
        self._timer: Timer | None = None

    def add(self, producer: Producer) -> None:
        self.producers.add(producer)
        if self._timer is None:
            self._mark()
            self._timer = current_clock().call_later(self.period, self._sweep)

    def _mark(self) -> None:
        if self._marks is not None:
            self._marks.append(_kernel.advance_tick())
            if len(self._marks) == self._marks.maxlen:
                self.threshold = self._marks[0]

    def _sweep(self) -> None:
        self._mark()
        self._go_on(self._sweep_all())

    def _go_on(self, sweep: Generator[None, None, None]) -> None:
        clock = current_clock()
        for _ in sweep:
            self._timer = clock.call_later(0.001, lambda: self._go_on(sweep))
            return
        self._timer = clock.call_later(self.period, self._sweep) if self.producers else None

    def _sweep_all(self) -> Generator[None, None, None]:
        seen = 0
        for producer in list(self.producers):
            entries = producer.entries
            for key in list(entries):
                _drop(entries, key, self.threshold, _threshold_of)
                seen += 1
                if seen % SLICE == 0:
                    yield
            _give_back(entries)
            if not entries:
                self.producers.discard(producer)
                producer.is_idle = True

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _references(entries: dict[Any, Any], key: Any) -> int:
    node = entries.get(key)
    return sys.getrefcount(node)


_UNHELD = _references({0: object()}, 0)
"""The reference count, seen from a function like `_drop`, of what only one dictionary holds."""


def _drop(
    entries: dict[Any, Any],
    key: Any,
    threshold: float,
    threshold_of: Callable[[Any], float] | None = None,
) -> int:
    """Drop a result if nobody holds it and it was not used since `threshold`; returns how many.

    Then the results that only it held are looked at in the same way, with a threshold of their own
    if `threshold_of` is given: a long chain that nobody needs goes at once, not link by link.
    """
    dropped = 0
    freed: list[tuple[dict[Any, Any], Any]] = []
    while True:
        node = entries.get(key)
        if (
            node is not None
            and node.used <= threshold
            and sys.getrefcount(node) <= _UNHELD
            and (node.extra is None or _can_go(node.extra))
        ):
            del entries[key]
            dropped += 1
            for part in node.dependencies:
                freed.append((part.keeper.entries, part.key))
                del part
            if node.extra is not None and node.extra.consolidation is not None:
                source = node.extra.consolidation.source
                freed.append((source.keeper.entries, source.key))
                del source
        if not freed:
            return dropped
        entries, key = freed.pop()
        if threshold_of is not None:
            node = entries.get(key)
            threshold = threshold_of(node) if node is not None else 0
        del node


def _can_go(extra: Any) -> bool:
    if extra.is_watched:
        return False
    if extra.timer is not None:
        extra.timer.cancel()
    return True


def _threshold_of(node: Any) -> float:
    cohort = _cohorts.get(node.keeper.options.keep_alive)
    return cohort.threshold if cohort is not None else -1


def _give_back(entries: dict[Any, Any]) -> None:
    """Return the memory that a dict keeps when most of its items were removed."""
    if sys.getsizeof(entries) > 512 * (len(entries) + 1):
        left = dict(entries)
        entries.clear()
        entries.update(left)


def enlist(producer: Producer) -> None:
    """Make a new producer known."""
    _producers.add(producer)


def enlist_table(table: Producer) -> None:
    """Make the results of a new table count among those that are kept."""
    _tables.add(table)


def watch(producer: Producer) -> None:
    """Look after the results of `producer`, which keeps some from now on."""
    producer.is_idle = False
    keep_alive = producer.options.keep_alive
    if keep_alive < math.inf:
        cohort = _cohorts.get(keep_alive)
        if cohort is None:
            cohort = _cohorts[keep_alive] = Cohort(keep_alive)
        cohort.add(producer)


# -- the budget


def node_budget() -> int:
    """How many results may be kept at once."""
    return _budget


def set_node_budget(budget: int) -> int:
    """Set how many results may be kept at once; the least recently used leave first.

    Results that others depend on or that anybody holds stay, even over the budget. To save work,
    the results leave in batches of up to an eighth of the budget.

    Args:
        budget: a positive number of results; 1,000,000 by default.

    Returns:
        The previous budget.
    """
    global _budget
    if budget < 1:
        raise ValueError(f"A node budget of {budget} keeps nothing; use 1 or more.")
    previous, _budget = _budget, budget
    _kernel.configure(room=_make_room())
    return previous


def _make_room() -> int:
    """Drop results if there are too many; returns how many may come before the next look."""
    count = computed_count()
    if count > _budget:
        excess = count - _budget
        count -= _evict(excess + _budget // 8)
        if count > _budget:
            _log.warning(
                "%d results are held, over the node budget of %d, so none of them can be dropped.",
                count,
                _budget,
            )
            return max(1, _budget // 8)
    return _budget - count + 1


def _evict(wanted: int) -> int:
    producers = list(_tables)
    ticks = sorted(node.used for producer in producers for node in producer.entries.values())
    dropped = start = 0
    while dropped < wanted and start < len(ticks):
        # The oldest may be held, so look at as many again as are still wanted.
        start = min(max(start + wanted - dropped, 2 * start), len(ticks))
        threshold = ticks[start - 1]
        for producer in producers:
            entries = producer.entries
            old = [key for key, node in entries.items() if node.used <= threshold]
            for key in old:
                if dropped >= wanted:
                    break
                dropped += _drop(entries, key, threshold)
    return dropped


# -- looking at the graph


def nodes() -> Iterator[Computed[Any]]:
    """Iterate over the results of compute methods that are kept or being computed at this moment.

    The results of states belong to those, and are found through `Computed.dependencies`.
    """
    for producer in list(_tables):
        yield from list(producer.entries.values())
        yield from list(producer.computing.values())


def edges() -> Iterator[tuple[Computed[Any], Computed[Any]]]:
    """Iterate over pairs: a result of `nodes()`, and one that it was computed from."""
    for node in nodes():
        for dependency in node.dependencies:
            yield node, dependency


def computed_count() -> int:
    """How many results of compute methods are kept."""
    return sum(len(producer.entries) for producer in list(_tables))


# -- maintenance


def invalidate_everything() -> None:
    """Make the results of all compute methods stale, for tests and emergencies."""
    for node in nodes():
        _kernel.invalidate(node, causes.EVERYTHING, True)


def prune() -> int:
    """Drop all results that nobody holds, however recently used; returns how many."""
    dropped = 0
    for producer in list(_tables):
        for key in list(producer.entries):
            dropped += _drop(producer.entries, key, math.inf)
    for producer in list(_tables):
        _give_back(producer.entries)
    return dropped


def drop_computing() -> None:
    """Forget computations that a closed event loop left behind."""
    for producer in list(_producers):
        producer.computing.clear()


def _stop_sweeps() -> None:
    # Their timers are those of a clock that is no longer in use. Each producer starts them again,
    # on the clock of that moment, with its next result.
    for cohort in _cohorts.values():
        cohort.stop()
        for producer in cohort.producers:
            producer.is_idle = True
    _cohorts.clear()


on_clock_change(_stop_sweeps)


def _reset_after_fork() -> None:
    for cohort in _cohorts.values():
        cohort.stop()
    _cohorts.clear()
    for producer in list(_producers):
        producer.entries.clear()
        producer.computing.clear()
        producer.is_idle = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

_kernel.configure(room=_budget, make_room=_make_room)
