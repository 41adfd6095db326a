"""What each command adds to an operation: a part of its own, kept apart until the command succeeds.

What a nested command has said to be stale, its events and its items are dropped if it fails, as its
writes are, whatever other nested commands do at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from afresh.commands import CommandContext

from .effects import Effects
from .events import OperationEvent
from .outbox import OutboxMessage

if TYPE_CHECKING:
    from .operation import Slot

__all__ = ["LEVEL", "Level", "Part", "Savepoint", "level_of", "levels_of"]

LEVEL = "afresh.operation_level"
"""Where the context of a nested command keeps its `Level`."""


class Part:
    """What a command adds to an operation, with all that it calls."""

    __slots__ = ("effects", "events", "items", "messages")

    def __init__(self) -> None:
        self.effects: Effects = Effects()
        self.events: dict[str, OperationEvent] = {}
        self.messages: list[OutboxMessage] = []
        self.items: dict[str, Any] = {}
        """What its handler leaves for its own block form; of no concern to others."""

    def add(self, part: Part) -> None:
        """Take over what a nested command has added."""
        self.effects.add(part.effects)
        for event in part.events.values():
            self.add_event(event)
        self.messages += part.messages

    def add_event(self, event: OperationEvent) -> None:
        """Add an event, in place of an earlier one of that name."""
        self.events.pop(event.uuid, None)
        self.events[event.uuid] = event


class Savepoint(Protocol):
    """What undoes the writes of a nested command that fails."""

    @property
    def is_active(self) -> bool:
        """Whether it is still there."""
        ...

    async def release(self) -> None:
        """Keep the writes, as far as the operation is committed."""
        ...

    async def rollback(self, error: BaseException) -> None:
        """Undo the writes; if that can't be done, the operation fails with this error."""
        ...


class Level(Part):
    """The part of a nested command.

    Args:
        outer: that of the nested command around it; None where the outermost one has called it.
        slot: where the outermost command keeps the operation.
    """

    __slots__ = ("outer", "savepoint", "slot")

    def __init__(self, outer: Level | None, slot: Slot) -> None:
        super().__init__()
        self.outer: Level | None = outer
        self.slot: Slot = slot
        self.savepoint: Savepoint | None = None
        """Where its writes begin, once there are any."""


def levels_of(context: CommandContext[Any] | None) -> list[Level]:
    """Return the parts of the nested commands around, the outermost first."""
    levels: list[Level] = []
    level = level_of(context)
    while level is not None:
        levels.insert(0, level)
        level = level.outer
    return levels


def level_of(context: CommandContext[Any] | None) -> Level | None:
    """Return the part of the innermost nested command around; None in an outermost one."""
    while context is not None:
        if context._items is not None:
            level: Level | None = context._items.get(LEVEL)
            if level is not None:
                return level
        context = context.outer
    return None
