"""A limit to how long something may take, by `current_clock()`."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from afresh.errors import CallTimeoutError
from afresh.primitives.clock import Timer, current_clock

__all__ = ["Deadline"]


class Deadline:
    """Cancels what runs in its `async with` block when time is over.

    Args:
        seconds: how long it may take.
        message: what the error says then.

    Raises:
        CallTimeoutError: from the block, when time is over.
    """

    __slots__ = ("_cancelling", "_is_over", "_message", "_seconds", "_task", "_timer")

    _task: asyncio.Task[object]
    _timer: Timer
    _cancelling: int

    def __init__(self, seconds: float, message: str) -> None:
        self._seconds = seconds
        self._message = message
        self._is_over = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "coroutines of asyncio run in tasks"
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = current_clock().call_later(self._seconds, self._cancel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if (
            self._is_over
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise CallTimeoutError(self._message) from error

    def _cancel(self) -> None:
        self._is_over = True
        self._task.cancel()
