"""Applies operations side by side, without a task for each.

Most are applied without waiting for anything, so one worker takes one after another, and a further
worker comes in only when all others wait. Operations that take long stay behind, and whoever
brought them goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeAlias

from afresh.operations.logged import LoggedOperation
from afresh.primitives.clock import current_clock
from afresh.primitives.tasks import start_background
from afresh.rpc.transports.deadline import Deadline

__all__ = ["Apply", "Workers"]

Apply: TypeAlias = Callable[[LoggedOperation], Coroutine[Any, Any, object]]
"""Applies an operation of another host; raises if that has to be tried again."""

_STINT = 32
"""How many operations a worker applies before others get a turn: less than a millisecond's work."""


class Workers:
    """Apply operations, so many at once.

    Args:
        apply: what applies one.
        done: is told of each that was applied, with None, or of which it failed, with the error.
        concurrency: how many are applied at once.
        timeout: how many seconds one may take.
    """

    def __init__(
        self,
        apply: Apply,
        done: Callable[[LoggedOperation, BaseException | None], object],
        *,
        concurrency: int,
        timeout: float,
    ) -> None:
        self.in_flight: dict[int, LoggedOperation] = {}
        """What is being applied now."""
        self._apply = apply
        self._done = done
        self._concurrency = concurrency
        self._timeout = timeout
        self._queue: deque[LoggedOperation] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._left_behind: set[asyncio.Task[None]] = set()
        self._able = 0  # workers that wait for their turn only
        self._progress: asyncio.Future[None] | None = None

    async def run(self, operations: Iterable[LoggedOperation], patience: float) -> None:
        """Apply operations; return when that is done, or goes on in the background.

        Args:
            operations: what to apply.
            patience: seconds after which operations that still wait are left behind, as long as
                there are workers for more.
        """
        self._queue.extend(operations)
        while self._queue:
            if not self._able:
                if len(self._tasks) >= self._concurrency:
                    await self._wait()
                    continue
                self._start()
            await asyncio.sleep(0)
        if not self._tasks - self._left_behind:
            return
        timer = current_clock().call_later(patience, self._leave_behind)
        try:
            while self._tasks - self._left_behind:
                await self._wait()
        finally:
            timer.cancel()

    def _leave_behind(self) -> None:
        self._left_behind |= self._tasks
        self._wake()

    async def aclose(self) -> None:
        """Cancel what is being applied."""
        self._queue.clear()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self) -> None:
        task = start_background(self._work(), name="afresh: apply operations")
        self._able += 1
        self._tasks.add(task)
        task.add_done_callback(self._note_end)

    async def _work(self) -> None:
        self._able -= 1
        queue, stint = self._queue, 0
        while queue:
            await self._apply_one(queue.popleft())
            stint += 1
            if stint == _STINT:
                stint = 0
                self._able += 1
                await asyncio.sleep(0)
                self._able -= 1

    async def _apply_one(self, logged: LoggedOperation) -> None:
        self.in_flight[logged.index] = logged
        failure: BaseException | None = None
        try:
            async with Deadline(
                self._timeout, f"Applying operation {logged.uuid} took over {self._timeout} s."
            ):
                await self._apply(logged)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failure = error
        except Exception as error:
            failure = error
        finally:
            del self.in_flight[logged.index]
        self._done(logged, failure)
        self._wake()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._left_behind.discard(task)
        self._wake()

    def _wake(self) -> None:
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    async def _wait(self) -> None:
        """Wait until an operation was applied, or a worker has ended."""
        self._progress = asyncio.get_running_loop().create_future()
        await self._progress
