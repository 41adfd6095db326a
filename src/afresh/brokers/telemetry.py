"""Spans and figures of messages for OpenTelemetry, where its API is installed and somebody listens.

A message carries the trace of its publication, which is linked to that of the command that the
message tells of; the span of its handler is linked to that. Or each is the parent of the next, so
that all of it is one trace.

`look` returns None until a provider that records is found; asking OpenTelemetry for it takes longer
than many a message, so it is asked now and then only.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from .tracing import attributes_of, context_of
from .transport import IncomingMessage, OutgoingMessage

__all__ = ["Publishing", "Receiving", "Recorder", "TraceOf", "look"]

TraceOf: TypeAlias = Literal["link", "parent"]
"""How a span is related to the one that a message tells of."""

_recorder: Recorder | None = None
_look_in = 0
_LOOK_EVERY = 1000
"""Messages between two looks for a provider."""


def look() -> Recorder | None:
    """Return what records; None where nothing does."""
    global _recorder, _look_in
    if _recorder is None:
        _look_in -= 1
        if _look_in < 0:
            _look_in = _LOOK_EVERY
            _recorder = _find()
    return _recorder


def _find() -> Recorder | None:
    try:
        from opentelemetry import metrics, trace
    except ImportError:
        return None
    providers = trace.get_tracer_provider(), metrics.get_meter_provider()
    if all(
        type(each).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))
        for each in providers
    ):
        return None  # the API's own, which record nothing
    if not hasattr(metrics.Meter, "create_gauge"):
        return None  # the API is older than 1.23
    return Recorder(*providers)


class Recorder:
    """Records messages with OpenTelemetry.

    Args:
        tracers: the provider of spans.
        meters: the provider of figures.
    """

    def __init__(self, tracers: Any, meters: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context

        self._trace: Any = trace
        self._nothing: Any = Context()
        self._tracer: Any = tracers.get_tracer("afresh.brokers")
        meter = meters.get_meter("afresh.brokers")
        self._pending: Any = meter.create_gauge(
            "outbox.pending.count", unit="{message}", description="Messages to be published."
        )
        self._oldest: Any = meter.create_gauge(
            "outbox.oldest_age", unit="s", description="How long the oldest of them has waited."
        )
        self._dead: Any = meter.create_gauge(
            "outbox.dead.count", unit="{message}", description="Messages that were given up."
        )
        self._publish_durations: Any = meter.create_histogram(
            "outbox.publish.duration", unit="ms", description="Time until the broker's answer."
        )
        self._publish_counts: Any = meter.create_counter(
            "outbox.publish.count", unit="{message}", description="Attempts to publish."
        )
        self._process_durations: Any = meter.create_histogram(
            "consumer.process.duration", unit="ms", description="Duration of handling a message."
        )
        self._in_flight: Any = meter.create_up_down_counter(
            "consumer.inflight", unit="{message}", description="Messages being handled."
        )
        self._counts: dict[str, Any] = {
            outcome: meter.create_counter(name, unit="{message}", description=description)
            for outcome, name, description in (
                ("duplicate", "inbox.duplicate.count", "Messages that were handled before."),
                ("retried", "consumer.retry.count", "Messages to be handled again."),
                ("dead", "consumer.dead.count", "Messages that were put aside."),
            )
        }

    def publish(self, message: OutgoingMessage, trace: TraceOf = "link") -> Publishing:
        """Begin to record that a message is published.

        Args:
            message: as it stands in the outbox.
            trace: how the span is related to that of the command.

        Returns:
            What has the message as it is to be published, with the trace of this span.
        """
        attributes = {"messaging.destination.name": message.destination}
        details = {"messaging.message.id": message.id, "messaging.operation.type": "send"}
        kind = self._trace.SpanKind.PRODUCER
        span = self._start(
            f"publish {message.destination}", kind, attributes | details, message.attributes, trace
        )
        attributes_of_span = attributes_of(self._trace.set_span_in_context(span, self._nothing))
        if attributes_of_span:
            message = replace(message, attributes={**message.attributes, **attributes_of_span})
        return Publishing(self, message, span, attributes)

    def receive(self, group: str, message: IncomingMessage, trace: TraceOf = "link") -> Receiving:
        """Begin to record the handling of a message.

        Args:
            group: as whom it was received.
            message: as it came.
            trace: how the span is related to that of the publication.
        """
        attributes = {
            "messaging.destination.name": message.destination,
            "messaging.consumer.group.name": group,
        }
        details: dict[str, Any] = {
            "messaging.message.id": message.attributes.get("id", ""),
            "messaging.operation.type": "process",
            "messaging.message.deliveries": message.deliveries,
        }
        carrier = message.attributes if "traceparent" in message.attributes else message.headers
        kind = self._trace.SpanKind.CONSUMER
        span = self._start(
            f"process {message.destination}", kind, attributes | details, carrier, trace
        )
        return Receiving(self, span, attributes)

    def _start(
        self,
        name: str,
        kind: Any,
        attributes: dict[str, Any],
        carrier: Any,
        trace: TraceOf,
    ) -> Any:
        # What happens to be recorded around the relay, or the subscription, is another matter.
        context, links = self._nothing, []
        before = context_of(carrier)
        if before is not None and trace == "parent":
            context = before
        elif before is not None:
            span_context = self._trace.get_current_span(before).get_span_context()
            links.append(self._trace.Link(span_context))
        return self._tracer.start_span(
            name, context=context, kind=kind, attributes=attributes, links=links
        )

    def _fail(self, span: Any, error: str | None) -> None:
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, error))

    def levels(self, shard: str, pending: int, oldest: float, dead: int) -> None:
        """An outbox was counted.

        Args:
            shard: where it is.
            pending: how many messages are to be published.
            oldest: for how many seconds the oldest of them has been waiting.
            dead: how many were given up.
        """
        attributes = {"shard": shard}
        self._pending.set(pending, attributes)
        self._oldest.set(oldest, attributes)
        self._dead.set(dead, attributes)


class Publishing:
    """The span and the duration of publishing one message.

    Args:
        recorder: what records.
        message: as it is to be published.
        span: of this.
        attributes: of the figures.
    """

    __slots__ = ("_attributes", "_recorder", "_span", "_started", "message")

    def __init__(
        self, recorder: Recorder, message: OutgoingMessage, span: Any, attributes: dict[str, str]
    ) -> None:
        self.message: OutgoingMessage = message
        self._recorder = recorder
        self._span = span
        self._attributes = attributes
        self._started = time.perf_counter()

    def end(self, outcome: str, error: str | None = None) -> None:
        """The broker has answered, or has not.

        Args:
            outcome: "confirmed", "transient", "permanent", "unavailable" or "cancel".
            error: why it is not confirmed.
        """
        duration = 1000 * (time.perf_counter() - self._started)
        recorder = self._recorder
        self._span.set_attribute("outcome", outcome)
        if outcome != "confirmed":
            recorder._fail(self._span, error)
        self._span.end()
        attributes = {**self._attributes, "outcome": outcome}
        recorder._publish_durations.record(duration, attributes)
        recorder._publish_counts.add(1, attributes)


class Receiving:
    """The span and the duration of handling one message; it is current until the end.

    Args:
        recorder: what records.
        span: of this.
        attributes: of the figures.
    """

    __slots__ = ("_attributes", "_recorder", "_scope", "_span", "_started")

    def __init__(self, recorder: Recorder, span: Any, attributes: dict[str, str]) -> None:
        self._recorder = recorder
        self._span = span
        self._attributes = attributes
        self._scope: Any = recorder._trace.use_span(span)
        self._scope.__enter__()
        recorder._in_flight.add(1, attributes)
        self._started = time.perf_counter()

    def end(self, outcome: str, error: str | None = None) -> None:
        """The message was handled, or put off, or put aside.

        Args:
            outcome: "handled", "duplicate", "unknown", "retried", "dead" or "cancel".
            error: why it was not handled.
        """
        duration = 1000 * (time.perf_counter() - self._started)
        recorder = self._recorder
        self._scope.__exit__(None, None, None)
        self._span.set_attribute("outcome", outcome)
        if outcome in {"retried", "dead"}:
            recorder._fail(self._span, error)
        self._span.end()
        recorder._in_flight.add(-1, self._attributes)
        recorder._process_durations.record(duration, {**self._attributes, "outcome": outcome})
        counter = recorder._counts.get(outcome)
        if counter is not None:
            counter.add(1, self._attributes)
