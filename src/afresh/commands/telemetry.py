"""Spans and durations of commands for OpenTelemetry, where its API is installed and somebody
listens.

The names are those of the .NET original. `recorder` is None until a provider that records is found;
asking OpenTelemetry for it takes longer than many a command, so it is asked now and then only.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import TYPE_CHECKING, Any

from .command import tag_of

if TYPE_CHECKING:
    from .context import CommandContext

__all__ = ["Recorder", "Recording", "look"]

_LOOK_EVERY = 1000
"""Commands between two looks for a provider."""


def look() -> tuple[Recorder | None, int]:
    """Return what records, and after how many commands to ask again if nothing does."""
    try:
        from opentelemetry import metrics, trace
    except ImportError:
        return None, 0
    providers = trace.get_tracer_provider(), metrics.get_meter_provider()
    if all(map(_is_silent, providers)):
        return None, _LOOK_EVERY
    return Recorder(*providers), 0


def _is_silent(provider: object) -> bool:
    """Whether a provider is one of the API's own, which record nothing."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


class Recorder:
    """Records commands with OpenTelemetry.

    Args:
        tracers: the provider of spans.
        meters: the provider of figures.
    """

    def __init__(self, tracers: Any, meters: Any) -> None:
        from opentelemetry import context, trace

        self._trace: Any = trace
        self._context: Any = context
        self._tracer: Any = tracers.get_tracer("afresh.commands")
        self._durations: Any = meters.get_meter("afresh.commands").create_histogram(
            "command.execution.duration", unit="ms", description="Duration of a command."
        )

    def begin(
        self, context: CommandContext[Any], ambient: contextvars.Context | None
    ) -> Recording | None:
        """Begin to record a command, before it is handled.

        Args:
            context: of the command.
            ambient: where it will be handled; None for here.
        """
        if _is_untold(context):
            return None
        return Recording(self, context, ambient)


def _is_untold(context: CommandContext[Any]) -> bool:
    """Whether a system command calls the command, or is it and called by another."""
    outer = context.outer
    if outer is None:
        return False
    if context.chain.is_system:
        return True
    while outer is not None:
        if outer.chain.is_system:
            return True
        outer = outer.outer
    return False


class Recording:
    """The span and the duration of one command."""

    __slots__ = ("_attributes", "_recorder", "_span", "_started")

    def __init__(
        self,
        recorder: Recorder,
        context: CommandContext[Any],
        ambient: contextvars.Context | None,
    ) -> None:
        self._recorder = recorder
        name = tag_of(type(context.command))
        self._attributes = {
            "command.name": name,
            "command.kind": "event" if context.chain.is_event else "command",
            "command.scope": "outermost" if context.is_outermost else "nested",
        }
        surroundings = recorder._context.get_current()
        self._span: Any = recorder._tracer.start_span(
            f"cmd.{name}", context=surroundings, attributes=self._attributes
        )
        if context.commander.capture_payload and self._span.is_recording():
            try:
                self._span.set_attribute("command.payload", repr(context.command))
            except Exception as error:
                self._span.add_event("command.payload.error", {"error": type(error).__name__})
        inner = recorder._trace.set_span_in_context(self._span, surroundings)
        if ambient is None:
            recorder._context.attach(inner)
        else:
            ambient.run(recorder._context.attach, inner)
        self._started = time.perf_counter()

    def end(self, error: BaseException | None) -> None:
        """The command was handled, or failed."""
        duration = 1000 * (time.perf_counter() - self._started)
        outcome = "success"
        if isinstance(error, asyncio.CancelledError):
            outcome = "cancel"
        elif error is not None:
            outcome = "error"
            status = self._recorder._trace.Status(self._recorder._trace.StatusCode.ERROR)
            self._span.record_exception(error)
            self._span.set_status(status)
        self._span.end()
        self._recorder._durations.record(duration, {**self._attributes, "outcome": outcome})
