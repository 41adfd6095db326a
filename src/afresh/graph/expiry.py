"""Results that go stale by themselves: values after a while, errors sooner."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from afresh.primitives.transience import Transience, retry_delay_of, transience_of

from . import causes
from ._context import CONSISTENT

if TYPE_CHECKING:
    from .computed import Computed
    from .options import ComputedOptions

__all__ = ["lifetime", "schedule"]


def lifetime(error: BaseException | None, options: ComputedOptions) -> float:
    """Return for how many seconds a value (`error` is None) or an error is served.

    An error that says when to try again (`retry_delay`, in seconds) is served at least that long.
    """
    if error is None:
        return options.auto_invalidate
    match transience_of(error):
        case Transience.TRANSIENT | Transience.SUPER_TRANSIENT:
            seconds = options.transient_error_delay
        case Transience.TERMINAL:
            seconds = options.auto_invalidate
        case _:
            seconds = min(options.auto_invalidate, options.error_delay)
    return max(seconds, retry_delay_of(error) or 0.0)


def schedule(computed: Computed[Any], options: ComputedOptions) -> None:
    """Let a finished result go stale when its time is over."""
    if computed.state != CONSISTENT:
        return
    seconds = lifetime(computed._error, options)
    if seconds < math.inf:
        expired = causes.VALUE_EXPIRED if computed._error is None else causes.ERROR_EXPIRED
        computed._schedule(seconds, expired)
