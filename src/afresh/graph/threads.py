"""The way into the graph from other threads.

The graph belongs to the thread of one event loop and takes no locks. `invalidate_threadsafe` is the
one call that may be made from anywhere.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .computed import Computed
from .producer import graph_loop
from .scopes import invalidating

__all__ = ["invalidate_threadsafe"]


def invalidate_threadsafe(target: Any, *args: Any, **kwargs: Any) -> Future[None]:
    """Invalidate from any thread: the one call of the graph that may be made from everywhere.

    Args:
        target: a compute method of a service (`orders.for_user`), whose result for the arguments
            goes stale; a `Computed`; a state; or a function that is called inside `invalidating()`,
            for several at once.
        args: for the compute method, or the function.
        kwargs: likewise.

    Returns:
        A future that is done when the graph's event loop has carried it out; wait for it with
        `.result(timeout)`, but never in the thread of that event loop.

    Example:
        ```python
        invalidate_threadsafe(orders.for_user, "u1")
        ```
    """
    future: Future[None] = Future()

    def work() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            _invalidate(target, args, kwargs)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    loop = graph_loop()
    try:
        running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if loop is None or loop is running or not loop.is_running():
        work()  # nobody else can be at work in the graph
        return future
    try:
        loop.call_soon_threadsafe(work, context=contextvars.Context())
    except RuntimeError:  # closed in this very moment
        work()
    return future


def _invalidate(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if isinstance(target, Computed):
        target.invalidate(cause="invalidate_threadsafe")
        return
    invalidate: Callable[..., Any] | None = getattr(target, "invalidate", None)
    if invalidate is not None:
        invalidate(*args, **kwargs)
        return
    with invalidating("invalidate_threadsafe"):
        target(*args, **kwargs)
