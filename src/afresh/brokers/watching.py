"""What becomes of each message, for those who watch: dashboards, tests.

`Broker.on_published` and `Broker.on_handled` tell of it. Nothing is paid while nobody listens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .transport import IncomingMessage, OutgoingMessage, PublishResult

__all__ = ["HandledMessage", "PublishedMessage"]


@dataclass(frozen=True, slots=True)
class PublishedMessage:
    """A message that the broker has confirmed or refused, or could not be reached for.

    Args:
        message: what was published.
        result: what became of it.
    """

    message: OutgoingMessage
    result: PublishResult


@dataclass(frozen=True, slots=True)
class HandledMessage:
    """A message that was delivered here.

    Args:
        group: as whom it was received.
        message: what was delivered.
        outcome: "handled"; "duplicate", as it was handled before; "retried", as a handler failed
            and it will be delivered again; "dead", as it was put aside; "unknown", as nobody here
            handles its type.
    """

    group: str
    message: IncomingMessage
    outcome: Literal["handled", "duplicate", "retried", "dead", "unknown"]
