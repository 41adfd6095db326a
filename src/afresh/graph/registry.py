"""All results there are: how many may be kept, which there are, and what ends them all.

Each service keeps its own results; the registry only knows where. When more are kept than the
budget allows, the least recently used that nobody holds leave at once. Those that were not used for
their `keep_alive` leave through `keep_alive.py`.
"""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import _kernel, causes, keep_alive
from .keep_alive import drop, give_back

if TYPE_CHECKING:
    from .computed import Computed
    from .producer import Producer
    from .table import Table

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

_producers: weakref.WeakSet[Producer] = weakref.WeakSet()
"""All there are: compute methods of services, compute functions, states, computed sources."""
_tables: weakref.WeakSet[Producer] = weakref.WeakSet()
"""Those of compute methods and functions; the others keep nothing but their own latest result."""
_functions: weakref.WeakValueDictionary[str, Table] = weakref.WeakValueDictionary()
"""The results of compute functions, by the names of their modules and their own."""
_budget = DEFAULT_BUDGET


def enlist(producer: Producer) -> None:
    """Make a new producer known."""
    _producers.add(producer)


def enlist_table(table: Producer) -> None:
    """Make the results of a new table count among those that are kept."""
    _tables.add(table)


def enlist_function(table: Table) -> None:
    """Let the results of a compute function be found by its name."""
    _functions[f"{table.definition.module}:{table.definition.qualified_name}"] = table


def function_table(name: str) -> Table | None:
    """Return the results of a compute function: ``"package.module:name"``."""
    return _functions.get(name)


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
                dropped += drop(entries, key, threshold)
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
            dropped += drop(producer.entries, key, math.inf)
    for producer in list(_tables):
        give_back(producer.entries)
    return dropped


def drop_computing() -> None:
    """Forget what a closed event loop left undone."""
    for producer in list(_producers):
        producer.loop_is_gone()


def _reset_after_fork() -> None:
    keep_alive.reset()
    for producer in list(_producers):
        producer.entries.clear()
        producer.computing.clear()
        producer.is_idle = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

_kernel.configure(room=_budget, make_room=_make_room)
