"""The way into the graph from other threads.

The graph belongs to the thread of one event loop and takes no locks. `invalidate_threadsafe` is the
one call that may be made from anywhere.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from . import causes
from .computed import Computed
from .producer import graph_loop
from .scopes import Invalidating

__all__ = ["invalidate_threadsafe"]

_log = logging.getLogger("afresh.graph")

_lock = threading.RLock()
"""For threads that come while no event loop runs: one after the other."""


def invalidate_threadsafe(target: Any, *args: Any, **kwargs: Any) -> Future[None]:
    """Invalidate from any thread: the one call of the graph that may be made from everywhere.

    Where the graph's event loop runs in another thread, it carries this out as soon as it gets to
    it; else it is done at once. An error is logged, and in the future that is returned.

    Args:
        target: a compute method of a service (`orders.for_user`), whose result for the arguments
            goes stale; a `Computed`; a state or a `ComputedSource`; or a function that is called
            inside `invalidating()`, for several at once.
        args: for the compute method, or the function.
        kwargs: likewise; for a state or a source what its `invalidate()` takes.

    Returns:
        A future that is done when it is carried out; wait for it with `.result(timeout)`, but never
        in the thread of the graph's event loop.

    Raises:
        TypeError: `target` is none of these.

    Example:
        ```python
        invalidate_threadsafe(orders.for_user, "u1")
        ```
    """
    invalidate = _invalidation(target, args, kwargs, causes.here())
    future: Future[None] = Future()

    def work() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            invalidate()
        except Exception as error:
            _log.exception("invalidate_threadsafe(%r, ...) failed.", target)
            future.set_exception(error)
        except BaseException as error:
            future.set_exception(error)
            raise
        else:
            future.set_result(None)

    loop = graph_loop()
    try:
        running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if loop is not None and loop is not running and loop.is_running():
        try:
            loop.call_soon_threadsafe(work, context=contextvars.Context())
        except RuntimeError:
            pass  # closed in this very moment
        else:
            return future
    with _lock:
        work()
    return future


def _invalidation(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], cause: Any
) -> Callable[[], object]:
    if isinstance(target, Computed):
        if args or kwargs:
            raise TypeError("A Computed is invalidated as it is; leave the arguments out.")
        return lambda: target.invalidate(cause=cause)
    # Bound compute methods have this as well, but name no cause.
    invalidate: Callable[..., Any] | None = getattr(target, "invalidate", None)
    if invalidate is not None and not callable(target):
        return lambda: invalidate(*args, **{"cause": cause, **kwargs})
    if not callable(target):
        raise TypeError(
            f"{target!r} can't be invalidated; pass a compute method of a service with its "
            "arguments, a Computed, a state, or a function that calls compute methods."
        )

    def call() -> None:
        with Invalidating(cause):
            target(*args, **kwargs)

    return call
