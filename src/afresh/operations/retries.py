"""When a command whose operation failed is tried again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from afresh.primitives.delays import RetryDelays

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a command is tried again when its operation failed by something that may pass.

    Lost connections, deadlocks and conflicts of serializable transactions are such; so are errors
    whose `transience` says so. Those that are `Transience.SUPER_TRANSIENT` do not count.

    Args:
        retries: how many attempts there are after the first one; 0 for none.
        delays: seconds between them.
    """

    retries: int = 3
    delays: RetryDelays = field(
        default_factory=lambda: RetryDelays.exponential(0.5, 3, math.sqrt(2), 0.33)
    )
