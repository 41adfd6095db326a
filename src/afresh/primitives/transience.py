"""Is it worth trying again? Errors sorted by whether they may pass by themselves.

Decides nothing but the kind: what a kind means in seconds is left to whoever asks (a cached error
lives shorter when it is transient, a command is retried, a message goes to the dead letters).

An error tells by itself, with an attribute on its class or instance:

- `transience`: a `Transience`;
- `retry_delay`: seconds that must pass before another attempt makes sense.

For errors of others there is a resolver, a function from error to `Transience`; put your own in
place with `set_transience_resolver`.
"""

from __future__ import annotations

import asyncio
import enum
import io
import logging
from collections.abc import Callable

from afresh.errors import (
    InvalidStateError,
    NotCapturedError,
    ReentrantComputeError,
)

__all__ = [
    "Transience",
    "TransienceResolver",
    "prefer_non_transient",
    "prefer_transient",
    "retry_delay_of",
    "set_transience_resolver",
    "transience_of",
]

_logger = logging.getLogger("afresh.transience")


class Transience(enum.Enum):
    """What kind of error it is, as far as another attempt is concerned."""

    SUPER_TRANSIENT = "super-transient"
    """Will pass: the operation itself asks to be tried again, without limit."""

    TRANSIENT = "transient"
    """May pass: a time-out, a lost connection."""

    UNKNOWN = "unknown"
    """Nobody knows; treated like NON_TRANSIENT where no better rule is given."""

    NON_TRANSIENT = "non-transient"
    """Will not pass by itself: a bug, a bad argument, something that is not there."""

    TERMINAL = "terminal"
    """Will never pass: what would be tried again no longer exists."""


TransienceResolver = Callable[[BaseException], Transience]
"""Sorts an error; `Transience.UNKNOWN` when it cannot tell."""

# The first match counts, so special kinds stand before their bases.
_KINDS: tuple[tuple[Transience, tuple[type[BaseException], ...]], ...] = (
    (
        Transience.TERMINAL,
        (SystemExit, KeyboardInterrupt, GeneratorExit),
    ),
    (
        # OSErrors that are about what was asked for, not about the moment
        Transience.NON_TRANSIENT,
        (FileNotFoundError, NotADirectoryError, PermissionError, io.UnsupportedOperation),
    ),
    (
        Transience.TRANSIENT,
        (TimeoutError, ConnectionError, OSError),
    ),
    (
        Transience.NON_TRANSIENT,
        (
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            NameError,
            AssertionError,
            ArithmeticError,
            RuntimeError,
            ImportError,
            InvalidStateError,
            NotCapturedError,
            ReentrantComputeError,
        ),
    ),
)

# The members of the enumeration stand in this order.
_GRAVITY = {kind: gravity for gravity, kind in enumerate(Transience)}


def prefer_transient(error: BaseException) -> Transience:
    """Sort an error; what is not known counts as transient. The default resolver.

    - A tagged error is what its tag says.
    - Terminal: a service that is gone, the end of the program.
    - Transient: cancellations, time-outs, connection errors, other `OSError`s.
    - Non-transient: files that are missing, permissions that are lacking; type, value, look-up,
      attribute, name, assertion, arithmetic, runtime and import errors; wrong use of afresh.
    - A group of exceptions is what its gravest member is.
    """
    kind = _kind_of(error)
    return Transience.TRANSIENT if kind is Transience.UNKNOWN else kind


def prefer_non_transient(error: BaseException) -> Transience:
    """Sort an error like `prefer_transient`, but what is not known counts as non-transient."""
    kind = _kind_of(error)
    return Transience.NON_TRANSIENT if kind is Transience.UNKNOWN else kind


def _kind_of(error: BaseException) -> Transience:
    if isinstance(error, asyncio.CancelledError):
        return Transience.TRANSIENT
    tag = getattr(error, "transience", None)
    if isinstance(tag, Transience) and tag is not Transience.UNKNOWN:
        return tag
    if isinstance(error, BaseExceptionGroup):
        return max(map(_kind_of, error.exceptions), key=_GRAVITY.__getitem__)
    for kind, classes in _KINDS:
        if isinstance(error, classes):
            return kind
    return Transience.UNKNOWN


_resolver: TransienceResolver = prefer_transient


def transience_of(error: BaseException) -> Transience:
    """Sort an error with the resolver in place.

    A cancellation is always transient, whatever the resolver says. A resolver that fails is logged
    to "afresh.transience", and the error counts as transient.
    """
    if isinstance(error, asyncio.CancelledError):
        return Transience.TRANSIENT
    try:
        kind = _resolver(error)
        if not isinstance(kind, Transience):
            raise TypeError(f"The transience resolver returned {kind!r}, which is no Transience.")
    except Exception:
        _logger.exception("Could not tell the transience of %r; it counts as transient.", error)
        return Transience.TRANSIENT
    return kind


def set_transience_resolver(resolver: TransienceResolver) -> TransienceResolver:
    """Put another resolver in place, for the whole process, and return the previous one.

    ```python
    def resolve(error: BaseException) -> Transience:
        if isinstance(error, QuotaExceeded):
            return Transience.NON_TRANSIENT
        return prefer_transient(error)

    set_transience_resolver(resolve)
    ```
    """
    global _resolver
    previous, _resolver = _resolver, resolver
    return previous


def retry_delay_of(error: BaseException) -> float | None:
    """How long an error asks to wait before another attempt, in seconds.

    Returns:
        The number in its `retry_delay` attribute when that is greater than zero, the longest one of
        an exception group's members, or None.
    """
    delay = getattr(error, "retry_delay", None)
    if isinstance(delay, int | float) and not isinstance(delay, bool) and delay > 0:
        return float(delay)
    if isinstance(error, BaseExceptionGroup):
        delays = [delay for member in error.exceptions if (delay := retry_delay_of(member))]
        return max(delays, default=None)
    return None
