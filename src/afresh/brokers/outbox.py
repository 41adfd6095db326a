"""The outbox: messages are written in the transaction of the operation that they tell of.

What is written is complete: whoever publishes it needs no types and no code of the service.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Table, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from afresh.errors import DefinitionError, EventConflictError
from afresh.operations.identity import new_uuid
from afresh.operations.operation import Operation

from .envelope import Envelope
from .events import event_type_of
from .tracing import attributes_of

__all__ = ["BUCKETS", "DatabaseOutbox", "StoredMessage", "bucket_of"]

BUCKETS = 64
"""Into how many parts the outbox is split, each published by one host at a time."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as it stands in the outbox."""

    message_id: str
    destination: str
    key: str | None
    type: str
    content_type: str
    attributes: dict[str, str]
    body: bytes
    delay: float


def bucket_of(key: str) -> int:
    """Return the part of the outbox that messages of a key are in."""
    return zlib.crc32(key.encode()) % BUCKETS


class DatabaseOutbox:
    """Writes messages into the outbox; `App(broker=…)` makes it.

    Args:
        table: of the outbox.
        source: who publishes: a URI, such as "/shop".
        max_bytes: the largest event that the broker takes.
    """

    def __init__(self, table: Table, source: str, *, max_bytes: float = math.inf) -> None:
        self.source: str = source
        self._table = table
        self._max_bytes = max_bytes

    def make(
        self,
        operation: Operation,
        event: Any,
        *,
        key: str | None,
        destination: str | None,
        message_id: str | None,
        delay: float,
    ) -> StoredMessage:
        """Return the message that tells of an event: see `Operation.publish`.

        Raises:
            DefinitionError: the event can't be written.
            ValueError: an argument can't be used, or the event is too large.
        """
        if not 0 <= delay < math.inf:
            raise ValueError(f"delay={delay} must be seconds, and finite.")
        kind = event_type_of(type(event))
        try:
            body = kind.encode(event)
        except DefinitionError:
            raise
        except Exception as error:
            raise DefinitionError(
                f"{type(event).__qualname__} can't be written: {error}"
            ) from error
        if len(body) > self._max_bytes:
            raise ValueError(
                f"{type(event).__qualname__} takes {len(body):,} bytes, and the broker takes "
                f"{self._max_bytes:,} at most: store what is large, and let the event say where."
            )
        message_id = message_id or new_uuid()
        extensions = {"causationid": operation.uuid, **attributes_of()}
        if key is not None:
            extensions["partitionkey"] = key
        envelope = Envelope(
            id=message_id,
            source=self.source,
            type=kind.type,
            data=body,
            subject=key,
            time=datetime.now(UTC),
            extensions=extensions,
        )
        return StoredMessage(
            message_id,
            destination or kind.channel,
            key,
            kind.type,
            envelope.content_type,
            envelope.attributes(),
            body,
            delay,
        )

    async def store(
        self,
        connection: AsyncConnection,
        operation: Operation,
        messages: Sequence[StoredMessage],
    ) -> None:
        """Write messages, the last thing before the commit.

        Those of two operations that wait for each other's rows then stand in the order of commits.

        Raises:
            EventConflictError: a message has the name of one that is there already.
        """
        now = operation.logged_at or datetime.now(UTC)
        rows = []
        for message in messages:
            due_at = now + timedelta(seconds=message.delay) if message.delay else None
            row = {
                "message_id": message.message_id,
                "destination": message.destination,
                "key": message.key,
                "bucket": bucket_of(message.key if message.key is not None else message.message_id),
                "type": message.type,
                "content_type": message.content_type,
                "headers": _encode(message.attributes).decode(),
                "body": message.body,
                "operation_uuid": operation.uuid,
                "created_at": now,
                "not_before": due_at,
                "next_attempt_at": due_at,
            }
            rows.append(row)
        try:
            await connection.execute(insert(self._table), rows, execution_options={"touches": ()})
        except IntegrityError as error:
            names = ", ".join(message.message_id for message in messages)
            raise EventConflictError(
                f"A message of one of these names was published already: {names}. Leave "
                "message_id= out, or give each message one of its own."
            ) from error
