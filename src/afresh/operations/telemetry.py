"""Figures about attempts for OpenTelemetry, where its API is installed and somebody listens.

The names are those of the .NET original. Attempts fail rarely, so the provider is asked for each
time.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, TypeAlias

from afresh.commands.command import tag_of
from afresh.primitives.transience import Transience

__all__ = ["Outcome", "record_failure"]

Outcome: TypeAlias = Literal["scheduled", "exhausted"]
"""What follows upon a failure that may pass: another attempt, or none as there were enough."""


def record_failure(
    command_type: type, transience: Transience, outcome: Outcome, delay: float | None = None
) -> None:
    """An attempt of a command has failed by something that may pass.

    Args:
        command_type: of the command.
        transience: the kind of the error.
        outcome: what follows.
        delay: seconds before the next attempt.
    """
    try:
        from opentelemetry import metrics
    except ImportError:
        return
    counts, delays = _instruments(metrics.get_meter_provider())
    name = {"command.name": tag_of(command_type)}
    counts.add(1, {**name, "transiency": transience.value, "outcome": outcome})
    if delay is not None:
        delays.record(1000 * delay, {**name, "transiency": transience.value})


@functools.lru_cache(maxsize=1)
def _instruments(meters: Any) -> tuple[Any, Any]:
    meter = meters.get_meter("afresh.operations")
    return (
        meter.create_counter(
            "operation.retry.count",
            unit="{retry}",
            description="Failures of attempts that may pass, by what followed.",
        ),
        meter.create_histogram(
            "operation.retry.delay", unit="ms", description="Time before another attempt."
        ),
    )
