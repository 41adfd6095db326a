"""A user's own actions: they are run with errors shown, and their effects appear at once.

Each client has one `UIActionTracker`; while one of its actions runs, and shortly after, live
elements of that client skip their update delay. Everybody else's changes arrive after the delay.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from nicegui import Client, context, ui

from afresh.states import UIActionResult, UIActionTracker, UIDelayer

from .defaults import page_defaults

__all__ = ["act", "action_tracker", "run_action", "update_delayer"]

P = ParamSpec("P")
R = TypeVar("R")

_trackers: weakref.WeakKeyDictionary[Client, UIActionTracker] = weakref.WeakKeyDictionary()


def act(
    function: Callable[P, Awaitable[object] | object], *args: P.args, **kwargs: P.kwargs
) -> Callable[[], Awaitable[None]]:
    """Make an event handler that runs a function as the visitor's own action.

    ```python
    ui.button("Place order", on_click=act(place_order, user_id))
    ```

    What the action changes is shown to this visitor without the update delay. An error ends up in
    a notification, and in the log.

    Args:
        function: what to run, async or not. It may use `ui.notify` and the like even when the
            element that was clicked is gone by then.
        *args: its arguments.
        **kwargs: its keyword arguments.

    Returns:
        An event handler without parameters.
    """

    async def handler() -> None:
        await run_action(function, *args, **kwargs)

    return handler


async def run_action(
    function: Callable[P, Awaitable[Any] | Any], *args: P.args, **kwargs: P.kwargs
) -> UIActionResult[Any]:
    """Run a function as the current visitor's own action; see `act`.

    Returns:
        The result, good or bad. The visitor has been told about an error.
    """
    client = context.client  # now: what was clicked may be gone when the action ends
    with client:
        result = await action_tracker(client).run(
            functools.partial(function, *args, **kwargs), command=function
        )
        if result.error is not None and not client.is_deleted:
            ui.notify(page_defaults.describe_error(result.error), type="negative")
    return result


def action_tracker(client: Client | None = None) -> UIActionTracker:
    """The tracker of a visitor's actions.

    Args:
        client: whose; without one, the client of the current page or handler.
    """
    client = client or context.client
    tracker = _trackers.get(client)
    if tracker is None:
        tracker = _trackers[client] = UIActionTracker()
        client.on_delete(tracker.stop)
    return tracker


def update_delayer(client: Client, delay: float | None) -> UIDelayer:
    """A delay of so many seconds, or the default, that the client's own actions cut short."""
    return UIDelayer(action_tracker(client), page_defaults.update_delay if delay is None else delay)
