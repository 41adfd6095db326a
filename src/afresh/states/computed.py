"""`ComputedState`: the result of an async function, kept up to date."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

from afresh.errors import InvalidStateError
from afresh.graph.causes import INITIAL, STATE_CLOSED
from afresh.graph.computed import Computed, UpdateDelayer
from afresh.graph.options import ComputedOptions
from afresh.graph.producer import settle
from afresh.primitives.clock import Timer, current_clock
from afresh.primitives.tasks import start_background

from .delayers import as_delayer
from .snapshot import Snapshot
from .state import State

__all__ = ["ComputedState"]

T = TypeVar("T")


class ComputedState(State[T]):
    """The result of an async function, computed again whenever something it used goes stale.

    Computing starts when the state is made, which needs a running event loop. Between updates no
    task runs. Close it (``async with`` does) when it is no longer needed.

    Args:
        function: computes the value; what it uses is followed.
        delay: seconds between an invalidation and the update, or an update delayer. By default one
            second, and at once after a user's own action (`UIDelayer`).
        initial: the value until the first one is computed.
        options: how results go stale.
        category: what the state is called in logs and tools.
        graceful_close: seconds that an update in progress gets to end when the state is closed.
        flow_context: compute with the context variables of whoever made the state, rather than
            without any.
        configure: called with the state before anything happens to it, to attach handlers.
        start: whether to start computing at once; else `start()` does.

    Example:
        ```python
        async with ComputedState(lambda: orders.for_user("u1"), delay=0.1) as state:
            async for value in state:
                print(value)
        ```
    """

    default_options: ClassVar[ComputedOptions] = ComputedOptions()

    def __init__(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        delay: float | UpdateDelayer | None = None,
        initial: Any = None,
        options: ComputedOptions | None = None,
        category: str | None = None,
        graceful_close: float = 10.0,
        flow_context: bool = False,
        configure: Callable[[Any], object] | None = None,
        start: bool = True,
    ) -> None:
        self.delayer: UpdateDelayer = as_delayer(delay)
        """Decides when to update; may be replaced at any time."""
        self.graceful_close = graceful_close
        self._context = contextvars.copy_context() if flow_context else None
        self._task: asyncio.Task[None] | None = None
        self._is_computing = False
        self._closing: Timer | None = None
        self._loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None
        self.is_started = False
        self.is_closed = False
        super().__init__(function, options=options, category=category, configure=configure)
        computed: Computed[T] = settle(self._producer, initial)
        self._snapshot = Snapshot(computed)
        if start:
            self.start()
        computed.invalidate(now=True, cause=INITIAL)

    # -- life cycle

    def start(self) -> None:
        """Start computing; does nothing if that was done.

        Raises:
            InvalidStateError: no event loop is running, or the state is closed.
        """
        self._check_open()
        if self.is_started:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidStateError(
                f"{type(self).__name__} updates itself, for which an event loop must run; make it "
                "inside async code."
            ) from None
        self._loop = weakref.ref(loop)
        self.is_started = True
        self._run()

    def close(self) -> None:
        """Stop updating, and let go of what the value was computed from; it stays readable.

        An update in progress gets `graceful_close` seconds to end, so that what it fetches can be
        cached; its result is dropped.
        """
        if self.is_closed:
            return
        self.is_closed = True
        task = self._task
        if task is not None and not task.done():
            if self._is_computing and self.graceful_close > 0:
                self._closing = current_clock().call_later(self.graceful_close, task.cancel)
            else:
                task.cancel()
        self._close()

    dispose = close

    async def aclose(self) -> None:
        """Close the state, and return when nothing of it runs any more."""
        self.close()
        task = self._task
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait([task])

    async def __aenter__(self) -> ComputedState[T]:
        self._check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _check_open(self) -> None:
        if self.is_closed:
            raise InvalidStateError(f"{self!r} is closed; make a new one.")

    # -- using

    async def use(self) -> T:
        """Return the fresh value; the running computation then depends on the state.

        Raises:
            Exception: the computation failed.
            InvalidStateError: the state is closed.
        """
        self._check_open()
        return await self._snapshot.computed.use()

    async def update(self) -> Computed[T]:
        """Return the fresh result, computing it now if need be; adds no dependency.

        Raises:
            InvalidStateError: the state is closed.
        """
        self._check_open()
        return await super().update()

    # -- updating

    def _after_invalidation(self) -> None:
        if self.is_started and not self.is_closed:
            self._run()

    def _run(self) -> None:
        if self._task is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Made stale by code outside the loop: go on as soon as that runs again.
            home = self._loop()
            if home is not None and not home.is_closed():
                home.call_soon(self._run, context=contextvars.Context())
            return
        self._loop = weakref.ref(loop)
        self._task = start_background(
            self._keep_up, name=f"update of {self.category}", context=self._context
        )

    async def _keep_up(self) -> None:
        """Update until the result is fresh, then end: the next invalidation starts a new task."""
        task = asyncio.current_task()
        failures = 0
        try:
            while not self.is_closed:
                snapshot = self._snapshot
                if snapshot.computed.is_consistent:
                    return
                if not snapshot.is_initial or failures:
                    await self.delayer.delay(snapshot.retry_count + failures)
                if snapshot is self._snapshot and not self.is_closed:
                    self._is_computing = True
                    try:
                        await snapshot.computed.update()
                        failures = 0
                    except asyncio.CancelledError:
                        if task is None or task.cancelling():
                            raise
                        failures += 1  # something within keeps being cancelled: try again later
                    finally:
                        self._is_computing = False
        finally:
            self._task = None
            if self._closing is not None:
                self._closing.cancel()

    def _publish(self, computed: Computed[T]) -> None:
        if self.is_closed:
            computed.invalidate(now=True, cause=STATE_CLOSED)
        else:
            super()._publish(computed)
