"""Carries the context of traces across the broker, where OpenTelemetry is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["TRACE_ATTRIBUTES", "current_trace", "linked_context"]

TRACE_ATTRIBUTES = ("traceparent", "tracestate")
"""The extension attributes of CloudEvents for W3C Trace Context."""

try:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    _propagator = None
else:
    _propagator = TraceContextTextMapPropagator()


def current_trace() -> dict[str, str]:
    """Return the trace that is being recorded, as attributes; nothing where there is none."""
    carrier: dict[str, str] = {}
    if _propagator is not None:
        _propagator.inject(carrier)
    return carrier


def linked_context(attributes: Mapping[str, str]) -> Any:
    """Return the context of the trace that attributes tell of; None where there is none."""
    if _propagator is None or "traceparent" not in attributes:
        return None
    return _propagator.extract({name: attributes.get(name, "") for name in TRACE_ATTRIBUTES})
