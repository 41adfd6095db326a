"""Why a node went stale: what is recorded with an invalidation, and how it reads.

A cause is a place in the code, a text, or (with `track_causes(Tracking.CHAIN)`) the node whose
invalidation brought this one about. By default each node records where the invalidation began.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from . import _kernel

if TYPE_CHECKING:
    from .computed import Computed

__all__ = ["InvalidationCause", "Place", "Tracking", "here", "track_causes", "tracking"]

UNKNOWN = "unknown"
CANCELLED = "the computation was cancelled"
ERROR_EXPIRED = "a cached error expired"
VALUE_EXPIRED = "a cached value expired"
REPLACED = "a newer result took its place"
INITIAL = "an initial value is never fresh"
STATE_SET = "a state was set"
STATE_CLOSED = "a state was closed"
RECOMPUTED = "a new result was asked for"
CONSOLIDATED = "the result it consolidates changed"
EVERYTHING = "everything was invalidated"


class Tracking(enum.Enum):
    """How much is recorded of the causes of invalidations."""

    NONE = "none"
    """Nothing but what callers hand in."""
    ORIGIN = "origin"
    """Where the invalidation began: the place in the code, or a text. The default."""
    CHAIN = "chain"
    """The node whose invalidation was the cause, so that the way can be walked back; this keeps
    those nodes in memory."""


class Place:
    """A line of code.

    Args:
        code: of the function.
        instruction: the offset of the instruction in it.
    """

    __slots__ = ("code", "instruction")

    def __init__(self, code: CodeType, instruction: int) -> None:
        self.code: CodeType = code
        self.instruction: int = instruction

    @property
    def line(self) -> int:
        """The number of the line in its file."""
        for start, end, line in self.code.co_lines():
            if start <= self.instruction < end and line is not None:
                return line
        return self.code.co_firstlineno

    def __str__(self) -> str:
        name = getattr(self.code, "co_qualname", self.code.co_name)
        return f"{name} @ {Path(self.code.co_filename).name}:{self.line}"

    def __repr__(self) -> str:
        return f"<Place {self}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Place):
            return NotImplemented
        return self.code is other.code and self.instruction == other.instruction

    def __hash__(self) -> int:
        return hash((self.code, self.instruction))


_tracking = Tracking.ORIGIN


def tracking() -> Tracking:
    """How much is recorded at present."""
    return _tracking


def track_causes(how: Tracking) -> Tracking:
    """Choose how much is recorded of the causes of invalidations, from now on.

    Args:
        how: see `Tracking`.

    Returns:
        What was in force before.
    """
    global _tracking
    previous, _tracking = _tracking, how
    _kernel.configure(chain_causes=how is Tracking.CHAIN)
    return previous


def here(depth: int = 1) -> Any:
    """Return the cause of an invalidation that began `depth` callers above the calling function."""
    if _tracking is Tracking.NONE:
        return UNKNOWN
    frame = sys._getframe(depth + 1)
    return frame.f_code, frame.f_lasti  # cheap; `InvalidationCause` makes a Place of it


class InvalidationCause:
    """Why a node went stale: ``computed.invalidation_cause``.

    Iterating gives the chain of causes, nearest first: nodes (with `Tracking.CHAIN`), then a place
    or a text. `str()` is the origin alone; `describe_chain()` is all of it.
    """

    __slots__ = ("cause",)

    def __init__(self, cause: Any) -> None:
        self.cause: Any = cause

    def __iter__(self) -> Iterator[Computed[Any] | Place | str]:
        cause = self.cause
        seen: set[int] = set()
        while cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield Place(*cause) if isinstance(cause, tuple) else cause
            cause = getattr(cause, "cause", None)

    @property
    def origin(self) -> Computed[Any] | Place | str:
        """The last link of the chain: where it all began."""
        *_, last = (UNKNOWN, *self)
        return last

    def describe_chain(self) -> str:
        """The chain as text, nearest first: "a <- b <- c"."""
        return " <- ".join(str(link) for link in self) or UNKNOWN

    def __str__(self) -> str:
        return str(self.origin)

    def __repr__(self) -> str:
        return f"<InvalidationCause {self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InvalidationCause) and self.cause == other.cause

    def __hash__(self) -> int:
        return hash(self.cause)
