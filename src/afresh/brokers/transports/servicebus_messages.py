"""Messages of Azure Service Bus as ours, ours as its, and what its errors mean."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver, ServiceBusSender
from azure.servicebus.amqp import AmqpMessageBodyType
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusCommunicationError,
    ServiceBusConnectionError,
)

from ..transport import DeadMessage, IncomingMessage, Outcome, OutgoingMessage, Subscription
from .headers import DELIVERIES, GROUP, incoming_message, number_in

__all__ = [
    "UNREACHABLE",
    "close",
    "copy_of",
    "dead_of",
    "deliveries_of",
    "in_batches",
    "incoming",
    "name_of",
    "outcome_of",
    "peek",
    "received_size_of",
    "remaining",
    "size_of",
    "texts_of",
]

Item = TypeVar("Item")

UNREACHABLE = (
    ServiceBusConnectionError,
    ServiceBusCommunicationError,
    ServiceBusAuthenticationError,
    OSError,
)
"""The service is not there, or lets nobody in."""

_REFUSED = (MessageSizeExceededError, MessagingEntityNotFoundError, ServiceBusAuthorizationError)
_BATCH_BYTES = 200_000
_PEEKED = 250
_PEEK_SECONDS = 10.0
_UNKNOWN_LOCK_SECONDS = 30.0
_DEAD = {"DeadLetterReason", "DeadLetterErrorDescription"}


def name_of(group: str) -> str:
    """Return a name as that of a subscription: 50 letters, digits, dots, hyphens, underscores."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", group)[:50]


async def close(handler: ServiceBusReceiver | ServiceBusSender) -> None:
    """Close it; whatever is wrong with it, it is not used any more."""
    with contextlib.suppress(Exception):
        await handler.close()


def outcome_of(error: Exception) -> Outcome:
    """Return what an error means for what was published."""
    if isinstance(error, UNREACHABLE):
        return Outcome.UNAVAILABLE
    return Outcome.PERMANENT if isinstance(error, _REFUSED) else Outcome.TRANSIENT


def in_batches(items: Sequence[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Split what is sent at once, in order, into what every tier takes."""
    batch: list[Item] = []
    total = 0
    for item in items:
        total += size(item)
        if batch and total > _BATCH_BYTES:
            yield batch
            batch, total = [], size(item)
        batch.append(item)
    if batch:
        yield batch


def size_of(message: OutgoingMessage) -> int:
    """Return about how many bytes a message is on the wire."""
    texts = {**message.attributes, **message.headers}
    return len(message.body) + _size(texts) + 512


def received_size_of(raw: ServiceBusReceivedMessage) -> int:
    """Return about how many bytes a copy of a message is on the wire."""
    return len(_body(raw)) + _size(texts_of(raw)) + 512


def _size(texts: dict[str, str]) -> int:
    return sum(len(name) + 4 * len(value) + 32 for name, value in texts.items())


def remaining(raw: ServiceBusReceivedMessage) -> float:
    """Return the seconds until the lock expires."""
    until = raw.locked_until_utc
    if until is None:
        return _UNKNOWN_LOCK_SECONDS
    return (until - datetime.now(UTC)).total_seconds()


def texts_of(raw: ServiceBusReceivedMessage) -> dict[str, str]:
    """Return the properties that the application gave a message."""
    given = raw.application_properties or {}
    return {_text(name): _text(value) for name, value in given.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _body(raw: ServiceBusReceivedMessage) -> bytes:
    if raw.body_type == AmqpMessageBodyType.DATA:
        return b"".join(raw.body)
    return str(raw).encode()


def incoming(raw: ServiceBusReceivedMessage, subscription: Subscription) -> IncomingMessage:
    """Return a message as it is handed over."""
    return incoming_message(
        subscription,
        _body(raw),
        {name: text for name, text in texts_of(raw).items() if name not in _DEAD},
        (raw.delivery_count or 0) + 1,
        content_type=raw.content_type or "",
        key=raw.session_id,
    )


def deliveries_of(raw: ServiceBusReceivedMessage) -> int:
    """Return how often it was handed over, by this copy and those before it."""
    return int(number_in(texts_of(raw), DELIVERIES)) + (raw.delivery_count or 0) + 1


def copy_of(raw: ServiceBusReceivedMessage, properties: dict[str, str]) -> ServiceBusMessage:
    """Return the message for one group; it has another id, or a topic could drop it as known."""
    lost = {GROUP, DELIVERIES, *_DEAD}
    texts = {name: text for name, text in texts_of(raw).items() if name not in lost}
    return ServiceBusMessage(
        _body(raw),
        application_properties=dict[Any, Any](texts | properties),
        message_id=secrets.token_hex(16),
        subject=raw.subject,
        content_type=raw.content_type,
        correlation_id=raw.correlation_id,
        session_id=raw.session_id,
    )


def dead_of(raw: ServiceBusReceivedMessage, subscription: Subscription) -> DeadMessage:
    """Return a message of the dead-letter queue."""
    return DeadMessage(
        str(raw.sequence_number),
        incoming(raw, subscription),
        raw.dead_letter_reason or "",
        raw.dead_letter_error_description or "",
    )


async def peek(receiver: ServiceBusReceiver, limit: int | None) -> list[ServiceBusReceivedMessage]:
    """Look at the oldest messages, all if there is no limit."""
    found: list[ServiceBusReceivedMessage] = []
    first = 1
    while limit is None or len(found) < limit:
        count = _PEEKED if limit is None else min(_PEEKED, limit - len(found))
        more = await receiver.peek_messages(count, sequence_number=first, timeout=_PEEK_SECONDS)
        found += more
        if not more:
            break
        first = (more[-1].sequence_number or first) + 1
    return found
