"""What the two kernels share: the states of a node and the ambient context of a call.

The context variable holds one of three things: nothing (an ordinary call), the node being computed
by the running body (calls made by it become its dependencies), or a scope of `afresh.graph.scopes`
that gives calls another meaning.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

COMPUTING: Final = 0
CONSISTENT: Final = 1
INVALIDATED: Final = 2
SCOPE: Final = 3
"""Not a node's state: what a scope shows where a node would show its own, so that one look at
`state` tells them apart."""

PENDING: Final = 1
"""Flag: `invalidate()` came while the node was computing; it takes effect as soon as the result is
there."""
PENDING_NOW: Final = 2
"""Flag: that call asked to skip the invalidation delay."""
DELAYED: Final = 4
"""Flag: the node's options give it an invalidation delay."""
DELAY_RUNS: Final = 8
"""Flag: a delayed invalidation is under way; later ones add nothing."""

current: ContextVar[Any] = ContextVar("afresh.current", default=None)
