"""Bodies run apart from the graph: to see what a call would compute, and change nothing.

For tools that check what the graph holds. The body of a result is run once more; the calls it makes
find what is cached, and what is not cached is run apart as well. No edge is made, nothing is
published, no handler of the cached results is called. What `current_computed()` gives to such a
body is a result of its own, so that a body may let that expire.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from . import _kernel
from ._context import current
from .computed import Computed
from .consolidation import ConsolidatingTable
from .options import ComputedOptions
from .producer import Producer, produce
from .scopes import Scope
from .table import Table

__all__ = ["compute_apart"]

_OVER = "a run apart from the graph is over"


async def compute_apart(computed: Computed[Any]) -> Computed[Any]:
    """Run the body that `computed` came from, apart from the graph, and return what it gives.

    An error of the body is returned, too. The result is stale already, as it belongs to nothing;
    its `output` tells what it is.

    Args:
        computed: a result of a compute method.

    Raises:
        RecursionError: the body calls others too deeply.
    """
    twins: dict[Producer, _Twin] = {}
    twin = _twin_of(computed.keeper, twins)
    try:
        found: Computed[Any] = await produce(twin, computed.key, computed.args, None, True)
    finally:
        # Cancels timers, and lets bodies that asked for it give back what they took.
        for each in twins.values():
            for node in list(each.entries.values()):
                _kernel.invalidate(node, _OVER, True)
        twins.clear()  # a circle
    return found


def _twin_of(producer: Producer, twins: dict[Producer, _Twin]) -> _Twin:
    twin = twins.get(producer)
    if twin is None:
        twin = twins[producer] = _Twin(producer, twins)
    return twin


class _Twin(Producer):
    """Runs the bodies of another producer. No part of the registry, and gone after one run."""

    __slots__ = ("_original",)

    def __init__(self, original: Producer, twins: dict[Producer, _Twin]) -> None:
        body = original.source.body if isinstance(original, ConsolidatingTable) else original.body
        options = ComputedOptions(
            keep_alive=math.inf,
            transient_error_delay=math.inf,
            error_delay=math.inf,
            reprocessing=original.options.reprocessing,
        )
        super().__init__(_apart(body, twins), options, original.instance, original.arity)
        self._original = original

    @property
    def category(self) -> str:
        return self._original.category

    def describe(self, computed: Computed[Any]) -> str:
        return self._original.describe(computed)


def _apart(
    body: Callable[..., Awaitable[Any]], twins: dict[Producer, _Twin]
) -> Callable[..., Awaitable[Any]]:
    async def run(*args: Any) -> Any:
        # Not reset at the end: `produce`, which set the node, sets back what was there before it.
        current.set(_Apart(twins))
        return await body(*args)

    return run


class _Apart(Scope):
    """Where the body of a run apart makes its calls."""

    __slots__ = ("_twins", "computing")

    name: ClassVar[str] = "a run apart from the graph"

    def __init__(self, twins: dict[Producer, _Twin]) -> None:
        super().__init__()
        self.computing = self.parent
        self._twins = twins

    def missed(self, table: Table, key: Any, args: tuple[Any, ...]) -> Any:
        return produce(_twin_of(table, self._twins), key, args, self)
