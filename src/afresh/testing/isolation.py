"""A graph without a past, for tests that share services or change what holds for all.

Services that live longer than a test keep their results, as they should; a test that counts how
often something is computed, or that changes the defaults, has to begin and end with none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from afresh.graph import (
    default_options,
    invalidate_everything,
    node_budget,
    set_default_options,
    set_node_budget,
    track_causes,
    tracking,
)
from afresh.graph.registry import drop_computing
from afresh.primitives.clock import current_clock, set_clock
from afresh.states import delayer_defaults

__all__ = ["fresh_graph"]


@contextlib.contextmanager
def fresh_graph() -> Iterator[None]:
    """Begin with nothing cached, and end with nothing cached and everything set as before.

    What is set back: the clock, `default_options()`, the node budget, `track_causes()` and the
    defaults of delayers. The fixture of the same name puts this around a whole test.

    Example:
        ```python
        with fresh_graph():
            set_node_budget(100)
            ...
        ```
    """
    clock, options, budget, causes = current_clock(), default_options(), node_budget(), tracking()
    delays = {
        name: getattr(delayer_defaults, name)
        for name in ("min_delay", "update_delay", "retry_delays")
    }
    _forget_all()
    try:
        yield
    finally:
        _forget_all()
        set_clock(clock)
        set_default_options(options)
        set_node_budget(budget)
        track_causes(causes)
        for name, value in delays.items():
            setattr(delayer_defaults, name, value)


def _forget_all() -> None:
    invalidate_everything()
    drop_computing()
