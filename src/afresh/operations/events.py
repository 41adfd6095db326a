"""Durable events: commands that are handled later, if the operation that adds them is committed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args

from afresh.commands import CommandOf

from .identity import new_uuid

__all__ = ["MAX_NAME", "OnConflict", "OperationEvent", "make_event"]

OnConflict: TypeAlias = Literal["fail", "skip", "update"]
"""What becomes of an event whose uuid another one has already: the operation fails, the new event
is left out, or it takes the place of the other one if that is not handled yet."""

MAX_NAME = 128
"""Characters that the name of an event may have; handlers add theirs to it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class OperationEvent:
    """A command that is handled later, on any host: see `Operation.add_event`.

    Args:
        uuid: its name.
        command: what is handled.
        logged_at: when it was added.
        due_at: when it is to be handled; not before.
        on_conflict: what becomes of it if there is an event of that name.
    """

    uuid: str
    command: CommandOf[Any]
    logged_at: datetime
    due_at: datetime
    on_conflict: OnConflict


def make_event(
    command: CommandOf[Any],
    now: datetime,
    *,
    delay: float,
    due_at: datetime | None,
    uuid: str | None,
    on_conflict: OnConflict | None,
    quantum: float | None,
) -> OperationEvent:
    """Return the event that `Operation.add_event` adds; the arguments are the same.

    Raises:
        TypeError: it is no command.
        ValueError: the arguments do not fit together.
    """
    if not isinstance(command, CommandOf):
        raise TypeError(
            f"{command!r} can't be an event: hosts handle commands. Derive "
            f"{type(command).__qualname__} from Command[None]."
        )
    if due_at is not None and due_at.tzinfo is None:
        raise ValueError("due_at needs a time zone: datetime.now(UTC) + … for example.")
    if due_at is not None and delay:
        raise ValueError("An event takes delay= or due_at=, not both.")
    if on_conflict is not None and on_conflict not in get_args(OnConflict):
        raise ValueError(f'on_conflict={on_conflict!r} must be "fail", "skip" or "update".')
    if uuid is not None and (not uuid or uuid != uuid.strip() or uuid.startswith("~")):
        raise ValueError(f"{uuid!r} can't name an event: leave out ~ and spaces around it.")
    if not 0 <= delay < math.inf or (quantum is not None and not 0 < quantum < math.inf):
        raise ValueError(f"delay={delay} and quantum={quantum} must be seconds, and finite.")
    due = now + timedelta(seconds=delay) if due_at is None else due_at.astimezone(UTC)
    due = max(due, now)
    if quantum is not None:
        ticks = -((_EPOCH - due) // timedelta(seconds=quantum))
        due = _EPOCH + ticks * timedelta(seconds=quantum)
        uuid = f"{uuid or type(command).__qualname__}-at-{ticks:x}"
        on_conflict = on_conflict or "skip"
    if uuid is not None and len(uuid) > MAX_NAME:
        raise ValueError(f"The name of an event has {MAX_NAME} characters at most: {uuid!r}.")
    return OperationEvent(uuid or new_uuid(), command, now, due, on_conflict or "fail")
