"""Noting down what happens to states, in the order in which it does."""

from collections.abc import Callable
from typing import Any

from afresh.states import State, StateEvent

ALL = StateEvent.INVALIDATED | StateEvent.UPDATING | StateEvent.UPDATED


def note_events(
    into: list[tuple[str, Any]],
    what: Callable[[State[Any]], Any] = lambda state: state.value_or_none,
    events: StateEvent = ALL,
) -> Callable[[State[Any]], None]:
    """Make a `configure=` for states that notes the name of each event with `what(state)`."""

    def note(state: State[Any], event: StateEvent) -> None:
        into.append((str(event.name).lower(), what(state)))

    def configure(state: State[Any]) -> None:
        state.on(events, note)

    return configure


def update_number(state: State[Any]) -> int:
    """Which result the state has: 0 for the initial one."""
    return state.snapshot.update_count
