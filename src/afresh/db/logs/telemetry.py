"""Figures about logs for OpenTelemetry, where its API is installed and somebody listens.

The names are those of the .NET original. Asking OpenTelemetry for a provider takes a while, so it
is asked now and then only.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Recorder", "find_recorder"]

_LOOK_EVERY = 1000
"""Questions between two looks for a provider."""

_recorder: Recorder | None = None
_look_in = 1


def find_recorder() -> Recorder | None:
    """Return what records, None if nothing does."""
    global _recorder, _look_in
    if _recorder is None and _look_in:
        _look_in -= 1
        if not _look_in:
            _recorder, _look_in = _look()
    return _recorder


def _look() -> tuple[Recorder | None, int]:
    try:
        from opentelemetry import metrics
    except ImportError:
        return None, 0
    provider = metrics.get_meter_provider()
    if type(provider).__module__.startswith("opentelemetry.metrics"):
        return None, _LOOK_EVERY  # one of the API's own, which records nothing
    return Recorder(provider), 0


class Recorder:
    """Records figures with OpenTelemetry.

    Args:
        meters: the provider of figures.
    """

    def __init__(self, meters: Any) -> None:
        meter = meters.get_meter("afresh.db.logs")
        self._sizes: Any = meter.create_histogram(
            "db.log.batch.size", unit="{entry}", description="Entries read at once."
        )
        self._durations: Any = meter.create_histogram(
            "db.log.batch.duration", unit="ms", description="Time to read and process a batch."
        )
        self._operation_delays: Any = meter.create_histogram(
            "db.operation_log.processing.delay",
            unit="ms",
            description="Time from the commit of an operation elsewhere to its application here.",
        )
        self._event_delays: Any = meter.create_histogram(
            "db.event_log.processing.delay",
            unit="ms",
            description="Time from when an event is due to when it is processed.",
        )

    def batch(self, kind: str, size: int, seconds: float, outcome: str = "success") -> None:
        """A batch was read."""
        attributes = {"log.kind": kind, "outcome": outcome}
        self._sizes.record(size, attributes)
        self._durations.record(1000 * seconds, attributes)

    def operation_delay(self, shard: str, path: str, seconds: float) -> None:
        """An operation of another host was applied."""
        self._operation_delays.record(1000 * seconds, {"shard": shard, "path": path})

    def event_delay(self, shard: str, path: str, seconds: float) -> None:
        """An event was processed."""
        self._event_delays.record(1000 * seconds, {"shard": shard, "path": path})
