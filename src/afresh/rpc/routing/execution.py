"""How calls that run in this process take it when their route changes."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from types import TracebackType

from afresh.errors import RerouteError

from .targets import Route

__all__ = ["ExecutionMode", "local_execution"]


class ExecutionMode(enum.Enum):
    """How a call that runs in this process takes it when its route changes."""

    UNCONSTRAINED = "unconstrained"
    """It does not look at the route at all."""
    CONSTRAINED_ENTRY = "constrained entry"
    """It waits for the entry gate of the route, then runs to its end. For what only reads."""
    CONSTRAINED = "constrained"
    """Beyond that, it is cancelled when the route changes. For what has effects."""

    @classmethod
    def default(cls, *, is_compute: bool, is_distributed: bool) -> ExecutionMode:
        """The mode of a method for which none was chosen.

        Args:
            is_compute: whether it is a compute method.
            is_distributed: whether its service is spread over several hosts, this one among them.
        """
        if not is_distributed:
            return cls.UNCONSTRAINED
        return cls.CONSTRAINED_ENTRY if is_compute else cls.CONSTRAINED


class local_execution:  # noqa: N801 - used like a function, as asyncio.timeout is
    """An asynchronous context for a call that runs in this process.

    ```python
    async with local_execution(target.route, ExecutionMode.CONSTRAINED):
        return await service.place(order)
    ```

    Args:
        route: the route that led here.
        mode: how to take a change of it.

    Raises:
        RerouteError: the route changed before the body began, or cancelled it.
    """

    __slots__ = ("_cancellation", "_forget", "_is_cancelled", "_mode", "_route", "_task", "_wanted")

    def __init__(self, route: Route, mode: ExecutionMode) -> None:
        self._route = route
        self._mode = mode
        self._task: asyncio.Task[object] | None = None
        self._wanted = 0
        self._is_cancelled = False
        self._cancellation: asyncio.Handle | None = None
        self._forget: Callable[[], None] | None = None

    async def __aenter__(self) -> None:
        if self._mode is ExecutionMode.UNCONSTRAINED:
            return
        self._route.check()
        gate = self._route.entry_gate
        is_constrained = self._mode is ExecutionMode.CONSTRAINED
        if gate is None and not is_constrained:
            return
        self._follow()
        if gate is not None:
            try:
                await gate()
                self._route.check()
            except BaseException as error:
                self._leave(error)
                raise
            if not is_constrained:
                self._leave(None)

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(error)

    def _follow(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("local_execution works in tasks only; start one for the call.")
        self._task = task
        self._wanted = task.cancelling()
        self._forget = self._route.on_changed(self._cancel_soon)

    def _cancel_soon(self, route: Route) -> None:
        # In the loop's next turn: what a running task does to itself would come to light only
        # after the body, if the body has nothing left to await.
        self._cancellation = asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        self._cancellation = None
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel(f"{self._route!r} has changed.")

    def _leave(self, error: BaseException | None) -> None:
        """Stop following the route, and turn the cancellation that it caused into what it means."""
        if self._forget is not None:
            self._forget()
        if self._cancellation is not None:
            self._cancellation.cancel()
        if self._task is None or not self._is_cancelled:
            return
        # Somebody else may have cancelled the task as well, and that counts for more.
        is_ours = self._task.uncancel() <= self._wanted
        if is_ours and isinstance(error, asyncio.CancelledError):
            raise RerouteError(
                f"{self._route!r} has changed while a call was running here; ask the router again."
            ) from error
