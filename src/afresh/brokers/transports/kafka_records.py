"""Names of topics and groups at Kafka, and messages read out of records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..transport import DeadMessage, IncomingMessage, Subscription
from .headers import KEY, dead_message, incoming_message

__all__ = ["dead_name", "dead_record", "group_name", "headers_of", "incoming", "retry_name"]


def group_name(subscription: Subscription) -> str:
    """Return the name of a group at Kafka."""
    # Groups that share a name share rebalances, whatever they read.
    return f"{subscription.destination}.{subscription.group}"


def retry_name(subscription: Subscription) -> str:
    """Return the topic of what a group is handed again."""
    return f"{group_name(subscription)}.retry"


def dead_name(subscription: Subscription) -> str:
    """Return the topic of a group's dead messages."""
    return f"{group_name(subscription)}.dead"


def headers_of(record: Any) -> dict[str, str]:
    """Return the headers of a record as text."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}


def incoming(record: Any, subscription: Subscription, deliveries: int) -> IncomingMessage:
    """Return a record as a message that is handed over so often."""
    key = None if record.key is None else record.key.decode("utf-8", "replace")
    return incoming_message(
        subscription, record.value or b"", headers_of(record), deliveries, key=key
    )


def dead_record(record: Any, subscription: Subscription) -> DeadMessage:
    """Return a record of the topic of dead messages; its key is its name there."""
    message = incoming(record, subscription, 0)
    headers = headers_of(record)
    if KEY not in headers:
        message = replace(message, key=message.attributes.get("partitionkey"))
    return dead_message(record.key.decode(), message, headers)
