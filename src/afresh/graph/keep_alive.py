"""Letting go of results that nobody needs: unused for their `keep_alive`, and held by nobody.

Holding is told by reference counts: what only its own table refers to is held by nobody. Uses are
told by the kernel's ticks: a sweep notes the tick at its time, so "not used for a minute" is "not
used since the tick that was noted a minute ago". How many results there may be at all is the
registry's business.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from afresh.primitives.clock import Timer, current_clock, on_clock_change

from . import _kernel, metrics

if TYPE_CHECKING:
    from .producer import Producer

__all__ = ["drop", "give_back", "reset", "watch"]

SWEEPS_PER_KEEP_ALIVE = 4
SHORTEST_PERIOD = 0.2
"""Seconds between two sweeps, at least."""
LONGEST_PERIOD = 300.0
"""Seconds between two sweeps, at most, where all that is left is held and nothing new comes."""
SECONDS_PER_RESULT = 4e-6
"""Seconds until the next sweep for each result looked at, at least: some 5 % of one core."""
SLICE = 5_000
"""Results looked at in one go; then other work gets its turn."""

_cohorts: dict[float, Cohort] = {}


def watch(producer: Producer) -> None:
    """Look after the results of `producer`, of which there is a new one."""
    producer.is_idle = False
    keep_alive = producer.options.keep_alive
    if keep_alive < math.inf:
        cohort = _cohorts.get(keep_alive)
        if cohort is None:
            cohort = _cohorts[keep_alive] = Cohort(keep_alive)
        cohort.add(producer)


class Cohort:
    """All producers whose results are kept for the same time; they are swept together."""

    def __init__(self, keep_alive: float) -> None:
        self._keep_alive = keep_alive
        self._period = max(keep_alive / SWEEPS_PER_KEEP_ALIVE, SHORTEST_PERIOD)
        self._next = self._period
        self.producers: weakref.WeakSet[Producer] = weakref.WeakSet()
        self._marks: deque[tuple[float, int]] = deque()
        self._timer: Timer | None = None
        self.threshold: float = -1
        """Results last used at this tick or before have been unused for long enough."""

    def add(self, producer: Producer) -> None:
        """Sweep the results of `producer` too; at the usual pace, for there are new ones."""
        self.producers.add(producer)
        if self._timer is None:
            self._mark()
        elif self._next > self._period:
            self._timer.cancel()
        else:
            return
        self._wait(self._period)

    def stop(self) -> None:
        """Sweep no more; the next result of each producer starts it anew."""
        if self._timer is not None:
            self._timer.cancel()
        for producer in self.producers:
            producer.is_idle = True

    def _wait(self, period: float) -> None:
        self._next = period
        self._timer = current_clock().call_later(period, self._begin)

    def _mark(self) -> None:
        now = current_clock().now()
        marks = self._marks
        marks.append((now, _kernel.advance_tick()))
        while marks and marks[0][0] <= now - self._keep_alive:
            self.threshold = marks.popleft()[1]

    def _begin(self) -> None:
        self._mark()
        self._go_on(self._sweep())

    def _go_on(self, sweep: Generator[None, None, float]) -> None:
        try:
            next(sweep)
        except StopIteration as finished:
            if self.producers:
                self._wait(finished.value)
            else:
                self._timer = None
                self._marks.clear()
        else:
            self._timer = current_clock().call_later(0.001, lambda: self._go_on(sweep))

    def _sweep(self) -> Generator[None, None, float]:
        """Drop what can go; returns how many seconds to wait until the next sweep."""
        started = current_clock().now()
        seen = dropped = 0
        is_recent = False
        for producer in list(self.producers):
            entries = producer.entries
            for key in list(entries):
                node = entries.get(key)
                if node is not None:
                    is_recent |= node.used > self.threshold
                    node = None  # so that it is not held from here
                    dropped += drop(entries, key, self.threshold, _threshold_of)
                seen += 1
                if seen % SLICE == 0:
                    yield
            give_back(entries)
            producer.is_idle = True  # the next result is a reason to come back soon
            if not entries:
                self.producers.discard(producer)
        metrics.record_sweep(current_clock().now() - started, _kept(), dropped)
        if is_recent or dropped:
            return max(self._period, seen * SECONDS_PER_RESULT)
        return min(2 * self._next, LONGEST_PERIOD)


def _kept() -> int:
    return sum(
        len(producer.entries) for cohort in _cohorts.values() for producer in cohort.producers
    )


def _threshold_of(node: Any) -> float:
    cohort = _cohorts.get(node.keeper.options.keep_alive)
    return cohort.threshold if cohort is not None else -1


def _references(entries: dict[Any, Any], key: Any) -> int:
    node = entries.get(key)
    return sys.getrefcount(node)


_UNHELD = _references({0: object()}, 0)
"""The reference count, seen from a function like `drop`, of what only one dictionary holds."""


def drop(
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


def give_back(entries: dict[Any, Any]) -> None:
    """Return the memory that a dict keeps when most of its items were removed."""
    if sys.getsizeof(entries) > 512 * (len(entries) + 1):
        left = dict(entries)
        entries.clear()
        entries.update(left)


def reset() -> None:
    """Stop all sweeps; each producer starts them again, on the clock then in use, with its next
    result.
    """
    for cohort in _cohorts.values():
        cohort.stop()
    _cohorts.clear()


on_clock_change(reset)
