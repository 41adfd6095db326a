"""Headers of our own, and messages read out of what brokers hand over.

They say what a broker has no place for: the key, how often a message was delivered before it was
copied, and why it is dead. Headers are read whoever wrote them, so nothing in them is trusted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from ..envelope import split_headers
from ..transport import DeadLetter, DeadMessage, IncomingMessage, Subscription

__all__ = [
    "CONTENT_TYPE",
    "DEAD_ID",
    "DELIVERIES",
    "DESTINATION",
    "DIED_AT",
    "DUE",
    "ERROR",
    "GROUP",
    "KEY",
    "OF_DEATH",
    "REASON",
    "UNIQUE",
    "dead_message",
    "death_headers",
    "incoming_message",
    "number_in",
]

KEY = "x-afresh-key"
CONTENT_TYPE = "content-type"
DELIVERIES = "x-afresh-deliveries"
DUE = "x-afresh-due"
DESTINATION = "x-afresh-destination"
GROUP = "x-afresh-group"
UNIQUE = "x-afresh-unique"
REASON = "x-afresh-reason"
ERROR = "x-afresh-error"
DIED_AT = "x-afresh-died-at"
DEAD_ID = "x-afresh-dead-id"

OF_DEATH = frozenset({DELIVERIES, DUE, UNIQUE, GROUP, REASON, ERROR, DIED_AT, DEAD_ID})
"""What a message loses when it is handed over again as if for the first time."""

_RESERVED = {KEY, CONTENT_TYPE, DESTINATION, "correlation_id", *OF_DEATH}

_MOST_TEXT = 2_000


def incoming_message(
    subscription: Subscription,
    body: bytes,
    headers: Mapping[str, Any],
    deliveries: int,
    *,
    content_type: str = "",
    key: str | None = None,
) -> IncomingMessage:
    """Return a message as it is handed over.

    Args:
        subscription: by which it came.
        body: the data.
        headers: as the broker gives them.
        deliveries: how often the broker handed over this copy, this time included.
        content_type: where it stands in no header.
        key: where it stands in no header.
    """
    attributes, others = split_headers(headers)
    own = {name.lower(): value for name, value in others.items()}
    return IncomingMessage(
        subscription.destination,
        body,
        content_type or own.get(CONTENT_TYPE, ""),
        attributes,
        {name: value for name, value in others.items() if name.lower() not in _RESERVED},
        own.get(KEY) or key or attributes.get("partitionkey"),
        int(number_in(own, DELIVERIES)) + deliveries,
    )


def death_headers(death: DeadLetter) -> dict[str, str]:
    """Return what is written on a message that dies now."""
    return {
        REASON: death.reason[:_MOST_TEXT],
        ERROR: death.error[:_MOST_TEXT],
        DIED_AT: str(time.time()),
    }


def dead_message(name: str, message: IncomingMessage, headers: Mapping[str, Any]) -> DeadMessage:
    """Return a message with what stands on it of its death."""
    return DeadMessage(
        name,
        message,
        str(headers.get(REASON) or ""),
        str(headers.get(ERROR) or ""),
        number_in(headers, DIED_AT) or None,
    )


def number_in(headers: Mapping[str, Any], name: str) -> float:
    """Return the number that a header has; 0 where it has none."""
    try:
        number = float(headers.get(name) or 0)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0
