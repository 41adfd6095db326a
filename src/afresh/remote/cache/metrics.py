"""Figures of the cache of remote results for OpenTelemetry, where its API is installed.

The names are those of the .NET original.
"""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["Operation", "Outcome", "is_collecting", "record_lookup", "record_stale_value", "start"]

Outcome = Literal["hit", "miss", "error", "cancel"]
Operation = Literal["connection_check", "active_call"]

_instruments: _Instruments | None = None
_is_started = False


def start() -> None:
    """Make the instruments, once; does nothing where OpenTelemetry's API is not installed."""
    global _instruments, _is_started
    if _is_started:
        return
    _is_started = True
    try:
        from opentelemetry import metrics
    except ImportError:
        return
    _instruments = _Instruments(metrics.get_meter("afresh"))


def is_collecting() -> bool:
    """Whether anybody wants to know; if not, nothing needs to be timed."""
    return _instruments is not None


def record_lookup(seconds: float, outcome: Outcome) -> None:
    """Count one look-up.

    Args:
        seconds: how long it took.
        outcome: what came of it.
    """
    if _instruments is not None:
        _instruments.record_lookup(seconds, outcome)


def record_stale_value(operation: Operation) -> None:
    """Count one result that is known to be out of date, and was served for want of a connection.

    Args:
        operation: what showed that there is none: a look, or a call that was cut short.
    """
    if _instruments is not None:
        _instruments.stale_values.add(1, {"operation": operation})


class _Instruments:
    def __init__(self, meter: Any) -> None:
        prefix = "remote_computed.cache"
        self._requests = meter.create_counter(
            f"{prefix}.request.count", unit="{request}", description="Look-ups in the cache."
        )
        self.stale_values = meter.create_counter(
            f"{prefix}.stale_value.count",
            unit="{value}",
            description="Out-of-date results served for want of a connection.",
        )
        self._durations = meter.create_histogram(
            f"{prefix}.lookup.duration", unit="ms", description="Duration of a look-up."
        )

    def record_lookup(self, seconds: float, outcome: Outcome) -> None:
        attributes = {"outcome": outcome}
        self._requests.add(1, attributes)
        self._durations.record(1000 * seconds, attributes)
