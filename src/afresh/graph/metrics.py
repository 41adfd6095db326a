"""Figures of the graph for OpenTelemetry, where its API is installed.

The names are those of the .NET original. Hits are deliberately not counted: a counter would cost
more than the hit. `Monitor` samples them.
"""

from __future__ import annotations

from typing import Any

__all__ = ["record_sweep", "start"]

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


def record_sweep(seconds: float, kept: int, dropped: int) -> None:
    """Count one look at the results of all methods with the same `keep_alive`.

    Args:
        seconds: how long it took, pauses included.
        kept: how many results there are now, of all methods.
        dropped: how many it let go.
    """
    if _instruments is not None:
        _instruments.record_sweep(seconds, kept, dropped)


class _Instruments:
    def __init__(self, meter: Any) -> None:
        prefix = "computed.registry"
        self._kept = meter.create_up_down_counter(
            f"{prefix}.node.count", unit="{node}", description="Results kept, at the last sweep."
        )
        self._dropped = meter.create_counter(
            f"{prefix}.pruned.key.count", unit="{key}", description="Results that sweeps let go."
        )
        self._sweeps = meter.create_counter(
            f"{prefix}.prunes.key-cycle.count", unit="{cycle}", description="Sweeps."
        )
        self._durations = meter.create_histogram(
            f"{prefix}.prunes.key-cycle.duration", unit="ms", description="Duration of a sweep."
        )
        self._kept_before = 0

    def record_sweep(self, seconds: float, kept: int, dropped: int) -> None:
        self._kept.add(kept - self._kept_before)
        self._kept_before = kept
        self._dropped.add(dropped)
        self._sweeps.add(1)
        self._durations.record(1000 * seconds)
