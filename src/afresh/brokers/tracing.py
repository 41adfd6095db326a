"""Carries the context of traces across the broker, where OpenTelemetry is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["TRACE_ATTRIBUTES", "attributes_of", "context_of"]

TRACE_ATTRIBUTES = ("traceparent", "tracestate")
"""The extension attributes of CloudEvents for W3C Trace Context."""

try:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    _propagator = None
else:
    _propagator = TraceContextTextMapPropagator()


def attributes_of(context: Any = None) -> dict[str, str]:
    """Return the attributes that tell of a trace; none where there is none.

    Args:
        context: of the trace; what is being recorded here unless given.
    """
    carrier: dict[str, str] = {}
    if _propagator is not None:
        _propagator.inject(carrier, context)
    return carrier


def context_of(attributes: Mapping[str, str]) -> Any:
    """Return the context of the trace that attributes tell of; None where they tell of none."""
    if _propagator is None or "traceparent" not in attributes:
        return None
    carrier = {name: attributes[name] for name in TRACE_ATTRIBUTES if name in attributes}
    return _propagator.extract(carrier) or None
