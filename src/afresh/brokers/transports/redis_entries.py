"""Names of streams at Redis, entries of them, and what errors mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis.exceptions import AuthorizationError, NoPermissionError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..transport import Outcome, Subscription

__all__ = [
    "DATA",
    "Entry",
    "again_name",
    "dead_name",
    "encoded",
    "entries_of",
    "later_name",
    "outcome_of",
    "text",
]

DATA = b"__data__"
"""The field that FastStream writes a message into."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a stream, handed over so often."""

    stream: str
    id: bytes
    fields: dict[bytes, bytes]
    deliveries: int = 1


def again_name(subscription: Subscription) -> str:
    """Return the stream of what a group is handed again."""
    # Braces keep all of a destination on one node of a cluster.
    return f"{{{subscription.destination}}}.{subscription.group}.again"


def later_name(subscription: Subscription) -> str:
    """Return the sorted set of what a group is handed again later."""
    return f"{{{subscription.destination}}}.{subscription.group}.later"


def dead_name(subscription: Subscription) -> str:
    """Return the stream of a group's dead messages."""
    return f"{{{subscription.destination}}}.{subscription.group}.dead"


def outcome_of(error: Exception) -> Outcome:
    """Return what an error means for what was published."""
    match error:
        case AuthorizationError() | NoPermissionError():
            return Outcome.PERMANENT
        case RedisConnectionError() | RedisTimeoutError() | ReadOnlyError() | OSError():
            return Outcome.UNAVAILABLE
        case ResponseError() if str(error).startswith("WRONGTYPE"):
            return Outcome.PERMANENT
    return Outcome.TRANSIENT


def text(value: Any) -> str:
    """Return what the server names something, as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def encoded(headers: dict[str, str]) -> dict[str, Any]:
    """Return headers as bytes: FastStream counts characters of texts where it should not."""
    return {name: value.encode() for name, value in headers.items()}


def entries_of(answer: Any) -> list[Entry]:
    """Return what XREAD and XREADGROUP answer, in either version of the protocol."""
    found = []
    for stream, entries in answer.items() if isinstance(answer, dict) else answer or ():
        rows = entries[0] if entries and isinstance(entries[0], list) else entries
        found += [Entry(text(stream), name, fields) for name, fields in rows if fields]
    return found
