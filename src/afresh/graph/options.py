"""The options of compute methods and states: how long results live, and how they go stale."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from afresh.errors import DefinitionError
from afresh.primitives.delays import RetryDelays

__all__ = [
    "CancellationReprocessing",
    "ComputedOptions",
    "default_options",
    "set_default_options",
]


@dataclass(frozen=True, slots=True)
class CancellationReprocessing:
    """What happens when a body is cancelled from within: something that it awaited was cancelled,
    while nobody cancelled the caller. The body is then run again, within these bounds.
    """

    retries: int = 10
    """How many times, at most."""
    duration: float = 2.0
    """For how many seconds after the first cancellation another retry is granted."""
    delays: RetryDelays = field(
        default_factory=lambda: RetryDelays.exponential(0.05, 1.0, spread=0.1)
    )
    """How long to wait before each retry."""


@dataclass(frozen=True, slots=True)
class ComputedOptions:
    """How results of one compute method, or of one state, are kept and renewed. Times in seconds.

    `math.inf` means never. The defaults are those of compute methods.
    """

    keep_alive: float = 60.0
    """How long an unused result stays when nobody holds it and nothing depends on it."""
    auto_invalidate: float = math.inf
    """A value goes stale this long after it was computed."""
    invalidation_delay: float = 0.0
    """An invalidation takes effect this much later, and those in between join it."""
    transient_error_delay: float = 1.0
    """An error that may pass (a time-out, a lost connection) is served for this long."""
    error_delay: float = 30.0
    """Any other error is served for this long."""
    consolidate: float = math.inf
    """When a result goes stale, compute it anew after this delay, and tell dependants and holders
    only if it differs. `math.inf` turns that off."""
    equals: Callable[[Any, Any], bool] | None = None
    """How consolidation compares two values; ``==`` by default. Errors are equal when their types
    and messages are."""
    reprocessing: CancellationReprocessing = field(default_factory=CancellationReprocessing)
    """What to do when a body is cancelled from within."""

    def __post_init__(self) -> None:
        for name in _TIMES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise DefinitionError(f"{name} is a time in seconds, not {value!r}.")
            if not value >= 0:
                raise DefinitionError(
                    f"{name}={value!r}: a time in seconds can't be negative or NaN; "
                    "use math.inf for never."
                )
        if self.equals is not None:
            if not callable(self.equals):
                raise DefinitionError(
                    f"equals={self.equals!r}: a function of two values is needed."
                )
            if self.consolidate == math.inf:
                raise DefinitionError(
                    "equals= compares results that are consolidated, and nothing is without a "
                    "delay; add consolidate=0 or more."
                )

    @property
    def consolidates(self) -> bool:
        """Whether results are consolidated."""
        return self.consolidate != math.inf

    def replace(self, **changes: Any) -> ComputedOptions:
        """Return a copy with some options changed."""
        return dataclasses.replace(self, **changes)


_TIMES = (
    "keep_alive",
    "auto_invalidate",
    "invalidation_delay",
    "transient_error_delay",
    "error_delay",
    "consolidate",
)
OPTION_NAMES = tuple(field.name for field in dataclasses.fields(ComputedOptions))

_default = ComputedOptions()


def default_options() -> ComputedOptions:
    """The options of compute methods that name none."""
    return _default


def set_default_options(options: ComputedOptions) -> ComputedOptions:
    """Set the options of compute methods that name none; for those first called from now on.

    Returns:
        The previous ones.
    """
    global _default
    previous, _default = _default, options
    return previous


def check_names(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse options that do not exist.

    Raises:
        DefinitionError: names the option, what was probably meant, and what there is.
    """
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise DefinitionError(
                f"{where}: there is no option {name!r}.{hint} The options are {', '.join(known)}."
            )
