"""What operations need of whoever takes their messages to other services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .operation import Operation

__all__ = ["Outbox", "OutboxMessage"]


class OutboxMessage(Protocol):
    """A message that leaves if its operation is committed."""

    @property
    def message_id(self) -> str:
        """Its name, by which receivers know it again."""
        ...


class Outbox(Protocol):
    """Stores messages in the transactions of operations, to be published after those."""

    def make(
        self,
        operation: Operation,
        event: Any,
        *,
        key: str | None,
        destination: str | None,
        message_id: str | None,
        delay: float,
    ) -> OutboxMessage:
        """Return the message that tells of an event: see `Operation.publish`.

        Raises:
            DefinitionError: the event can't be written.
            ValueError: an argument can't be used, or the event is too large.
        """
        ...

    async def store(self, connection: Any, operation: Operation, messages: Sequence[Any]) -> None:
        """Write messages, the last thing before the commit.

        Args:
            connection: an SQLAlchemy `AsyncConnection`, with the transaction.
            operation: which they belong to.
            messages: as `make` returned them, in order.
        """
        ...
