"""Spans and figures of messages for OpenTelemetry, where its API is installed and somebody listens.

The span of a handler is linked to that of the command that published the event.
"""

from __future__ import annotations

import time
from typing import Any

from .tracing import linked_context
from .transport import IncomingMessage

__all__ = ["ConsumerRecorder", "look"]

_recorder: ConsumerRecorder | None = None
_look_in = 0
_LOOK_EVERY = 1000


def look() -> ConsumerRecorder | None:
    """Return what records; None where nothing does, which is asked now and then only."""
    global _recorder, _look_in
    if _recorder is None:
        _look_in -= 1
        if _look_in < 0:
            _look_in = _LOOK_EVERY
            _recorder = _find()
    return _recorder


def _find() -> ConsumerRecorder | None:
    try:
        from opentelemetry import metrics, trace
    except ImportError:
        return None
    providers = trace.get_tracer_provider(), metrics.get_meter_provider()
    if all(
        type(each).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))
        for each in providers
    ):
        return None
    return ConsumerRecorder(*providers)


class ConsumerRecorder:
    """Records the handling of messages with OpenTelemetry.

    Args:
        tracers: the provider of spans.
        meters: the provider of figures.
    """

    def __init__(self, tracers: Any, meters: Any) -> None:
        from opentelemetry import trace

        self.trace: Any = trace
        self.tracer: Any = tracers.get_tracer("afresh.brokers")
        meter = meters.get_meter("afresh.brokers")
        self.durations: Any = meter.create_histogram(
            "consumer.process.duration", unit="ms", description="Duration of handling a message."
        )
        self.counts: dict[str, Any] = {
            outcome: meter.create_counter(name)
            for outcome, name in {
                "duplicate": "inbox.duplicate.count",
                "retried": "consumer.retry.count",
                "dead": "consumer.dead.count",
            }.items()
        }

    def begin(self, group: str, message: IncomingMessage) -> ConsumerRecording:
        """Begin to record the handling of a message."""
        return ConsumerRecording(self, group, message)


class ConsumerRecording:
    """The span and the duration of handling one message."""

    __slots__ = ("_attributes", "_recorder", "_scope", "_span", "_started")

    def __init__(self, recorder: ConsumerRecorder, group: str, message: IncomingMessage) -> None:
        self._recorder = recorder
        self._attributes = {
            "messaging.destination.name": message.destination,
            "messaging.consumer.group.name": group,
        }
        links = []
        context = linked_context(message.attributes)
        if context is not None:
            span = recorder.trace.get_current_span(context)
            links.append(recorder.trace.Link(span.get_span_context()))
        self._span: Any = recorder.tracer.start_span(
            f"process {message.destination}",
            kind=recorder.trace.SpanKind.CONSUMER,
            attributes=self._attributes,
            links=links,
        )
        self._scope: Any = recorder.trace.use_span(self._span)
        self._scope.__enter__()
        self._started = time.perf_counter()

    def end(self, outcome: str) -> None:
        """The message was handled, or put off, or put aside."""
        duration = 1000 * (time.perf_counter() - self._started)
        self._scope.__exit__(None, None, None)
        self._span.set_attribute("outcome", outcome)
        self._span.end()
        attributes = {**self._attributes, "outcome": outcome}
        self._recorder.durations.record(duration, attributes)
        counter = self._recorder.counts.get(outcome)
        if counter is not None:
            counter.add(1, self._attributes)
