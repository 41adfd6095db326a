"""`ComputedState`: the result of an async function, kept up to date."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, TypeVar

from afresh.errors import InvalidStateError
from afresh.graph._context import current
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

_log = logging.getLogger("afresh.states")


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

    is_started: bool
    is_closed: bool

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
        self._function = function
        self._delayer = as_delayer(delay)
        self.graceful_close = graceful_close
        self._context = _flowing_context() if flow_context else None
        self._task: asyncio.Task[None] | None = None
        self._is_computing = False
        self._closing: Timer | None = None
        self._loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None
        self.is_started = False
        self.is_closed = False
        super().__init__(self._compute, options=options, category=category, configure=configure)
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
        self._resume()

    def close(self) -> None:
        """Stop updating, and let go of what the value was computed from; it stays readable.

        An update in progress gets `graceful_close` seconds to end, so that what it fetches can be
        cached; its result is dropped.
        """
        if self.is_closed:
            return
        self.is_closed = True
        task = self._task
        if task is not None:
            if self._is_computing and self.graceful_close > 0:
                self._closing = current_clock().call_later(
                    self.graceful_close, lambda: _cancel(task)
                )
            else:
                _cancel(task)
        self._close()

    dispose = close

    async def aclose(self) -> None:
        """Close the state, and return when nothing of it runs any more."""
        self.close()
        task = self._task
        if (
            task is not None
            and task is not asyncio.current_task()
            and task.get_loop() is asyncio.get_running_loop()
        ):
            await asyncio.wait([task])

    async def __aenter__(self) -> ComputedState[T]:
        self._check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _check_open(self) -> None:
        if self.is_closed:
            raise self._closed()

    def _closed(self) -> InvalidStateError:
        return InvalidStateError(f"{self!r} is closed; make a new one.")

    # -- using

    def use(self) -> Coroutine[Any, Any, T]:
        """Return the fresh value; the running computation then depends on the state.

        Returns:
            An awaitable of the value.

        Raises:
            Exception: the computation failed.
            InvalidStateError: the state is closed, or the call is made inside `invalidating()`.
        """
        self._check_open()
        return self._snapshot.computed.use()

    async def update(self) -> Computed[T]:
        """Return the fresh result, computing it now if need be; adds no dependency.

        Raises:
            InvalidStateError: the state is closed.
        """
        self._check_open()
        return await super().update()

    # -- updating

    @property
    def delayer(self) -> UpdateDelayer:
        """Decides when to update. May be set at any time, also to seconds; a delay that is under
        way is not changed by that.
        """
        return self._delayer

    @delayer.setter
    def delayer(self, delay: float | UpdateDelayer | None) -> None:
        self._delayer = as_delayer(delay)

    def _after_invalidation(self) -> None:
        self._resume()

    def _resume(self) -> None:
        if not self.is_started or self.is_closed or self.computed.is_consistent:
            return
        if self._task is not None and _is_at_work(self._task):
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Made stale by code outside the loop: go on as soon as that runs again.
            home = self._loop()
            if home is not None and not home.is_closed():
                home.call_soon(_resume, weakref.ref(self), context=contextvars.Context())
            return
        self._loop = weakref.ref(loop)
        self._is_computing = False
        context = self._context.copy() if self._context is not None else None
        self._task = start_background(
            _keep_up(weakref.ref(self)), name=f"update of {self.category}", context=context
        )

    async def _compute(self) -> T:
        try:
            return await self._function()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.is_closed or (task is not None and task.cancelling()):
                raise
            # Because of the closing, then; not something within that is worth another try.
            raise self._closed() from None

    async def _try_update(self) -> bool:
        """Update now; returns whether that came to a result, which may be an error."""
        self._is_computing = True
        try:
            await self._snapshot.computed.update()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return False  # something within keeps being cancelled
        except Exception:
            # Errors of the function are results; this is one that could not become one, for lack of
            # stack, or since the state was closed.
            if not self.is_closed:
                _log.exception("%r could not be updated; trying again later.", self)
            return False
        else:
            return True
        finally:
            self._is_computing = False

    def _end_task(self) -> None:
        self._task = None
        if self._closing is not None:
            self._closing.cancel()

    def _publish(self, computed: Computed[T]) -> None:
        if self.is_closed:
            computed.invalidate(now=True, cause=STATE_CLOSED)
        else:
            task = self._task
            if task is not None and not self._is_computing:
                _cancel(task)  # it waits to do what somebody else has just done
            super()._publish(computed)


async def _keep_up(reference: Callable[[], ComputedState[Any] | None]) -> None:
    """Update a state until it is fresh, then end: the next invalidation starts a new task.

    Holds the state only while it computes. When nobody else holds it any more, the task ends.
    """
    state = reference()
    if state is None:
        return
    task = asyncio.current_task()
    assert task is not None
    reference = weakref.ref(state, lambda _: _cancel_threadsafe(task))
    failures = 0
    try:
        while not state.is_closed and not state.computed.is_consistent:
            snapshot = state.snapshot
            if not snapshot.is_initial or failures:
                delay = state.delayer.delay(snapshot.retry_count + failures)
                state = snapshot = None  # type: ignore[assignment]
                await delay
                state = reference()
                if state is None or state.is_closed:
                    return
            failures = 0 if await state._try_update() else failures + 1
    finally:
        if state is None:
            state = reference()
        if state is not None and state._task is task:
            state._end_task()


def _resume(reference: Callable[[], ComputedState[Any] | None]) -> None:
    state = reference()
    if state is not None:
        state._resume()


def _is_at_work(task: asyncio.Task[None]) -> bool:
    return not (task.done() or task.cancelling() or task.get_loop().is_closed())


def _cancel(task: asyncio.Task[None]) -> None:
    if not task.get_loop().is_closed():
        task.cancel()


def _cancel_threadsafe(task: asyncio.Task[None]) -> None:
    # Garbage is collected by whatever thread comes across it.
    try:
        task.get_loop().call_soon_threadsafe(task.cancel, context=contextvars.Context())
    except RuntimeError:
        pass  # the loop is closed


def _flowing_context() -> contextvars.Context:
    # Without the computation or scope in which the state was made: it has nothing to do with them.
    context = contextvars.copy_context()
    context.run(current.set, None)
    return context
