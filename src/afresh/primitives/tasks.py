"""Tasks that run in the background of the library.

An event loop refers to its tasks weakly, passes on the context of whoever starts them, and tells of
their failures late if at all. Tasks started here are kept alive until done, inherit nothing, and
have their errors logged. When to stop them is left to those who start them.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["background_tasks", "start_background", "uncancelled"]

T = TypeVar("T")

_logger = logging.getLogger("afresh.tasks")
_tasks: set[asyncio.Task[Any]] = set()


def start_background(
    work: Callable[[], Coroutine[Any, Any, T]] | Coroutine[Any, Any, T],
    *,
    name: str,
    context: contextvars.Context | None = None,
) -> asyncio.Task[T]:
    """Run a coroutine in a task of its own on the running event loop.

    The task is kept alive until it is done, and takes its first step in the loop's next turn,
    whatever kind of tasks the loop makes. If it fails with anything but a cancellation, the error
    is logged to "afresh.tasks", whether or not somebody awaits the task.

    Args:
        work: a coroutine, or a function without arguments that makes one.
        name: what the task is called in logs and debuggers.
        context: context variables for the task; an empty context when not given, so that the
            task pins nothing that its starter was computing.

    Raises:
        RuntimeError: no event loop is running.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        if not callable(work):
            work.close()  # or else Python warns that nobody awaited it
        raise
    context = contextvars.Context() if context is None else context
    coroutine = context.run(work) if callable(work) else work
    # Not by the loop: one that makes eager tasks would run the first step here and now, perhaps in
    # the middle of an invalidation.
    task: asyncio.Task[T] = asyncio.Task(coroutine, loop=loop, name=name, context=context)
    _forget_tasks_of_closed_loops(loop)
    _tasks.add(task)
    task.add_done_callback(_note_done, context=contextvars.Context())
    return task


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, whatever happens to the task that waits for it.

    A cancellation of that task takes effect when the coroutine has ended; what came of it is lost
    then, and an error of it logged to "afresh.tasks".

    Args:
        work: it must end by itself, and soon.
    """
    task = asyncio.Task(work, loop=asyncio.get_running_loop())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("What had to be brought to its end failed.", exc_info=error)
        raise


def background_tasks() -> frozenset[asyncio.Task[Any]]:
    """The tasks started here that are alive on the running event loop.

    For tests that look for tasks left behind.

    Raises:
        RuntimeError: no event loop is running.
    """
    loop = asyncio.get_running_loop()
    _forget_tasks_of_closed_loops(loop)
    return frozenset(task for task in _tasks if task.get_loop() is loop and not task.done())


def _note_done(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _logger.error("The background task %r failed.", task.get_name(), exc_info=error)


def _forget_tasks_of_closed_loops(running: asyncio.AbstractEventLoop) -> None:
    # A loop that is closed while tasks are pending never reports them as done, and each would keep
    # it in memory. Looked for when the loop changes, so that starting a task stays cheap.
    global _latest_loop
    if _latest_loop() is running:
        return
    _latest_loop = weakref.ref(running)
    for task in [task for task in _tasks if task.get_loop().is_closed()]:
        _tasks.discard(task)


def _no_loop() -> None:
    """Stands for a weak reference to nothing."""


_latest_loop: Callable[[], asyncio.AbstractEventLoop | None] = _no_loop
