"""What the user is doing right now, so that pages can show its outcome at once.

`UIActionTracker` knows the actions that run and belongs to one user's view: a page, a window, a
connection. How fast states follow is left to `UIDelayer`, the list of what failed to `UIFailures`.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from afresh.errors import InvalidStateError
from afresh.primitives.clock import current_clock
from afresh.primitives.handlers import Handlers
from afresh.primitives.result import Result

__all__ = ["UIAction", "UIActionResult", "UIActionTracker"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_logger = logging.getLogger("afresh.ui")
_next_action_id = itertools.count(1).__next__


class UIAction(Generic[T]):
    """One thing that a user asked for, from its start to its result.

    Args:
        command: what the user asked for: a command, a function, a name to show.
    """

    __slots__ = ("__weakref__", "_completed", "_result", "command", "id", "started_at")

    def __init__(self, command: object) -> None:
        self.id: int = _next_action_id()
        """A number that is greater than that of any action made before."""
        self.command: object = command
        """What the user asked for."""
        self.started_at: float = current_clock().now()
        """When the action was made, in seconds of the clock."""
        self._result: UIActionResult[T] | None = None
        self._completed = Handlers[UIActionResult[T]](_logger)

    @property
    def result(self) -> UIActionResult[T] | None:
        """How the action ended; None while it runs."""
        return self._result

    @property
    def is_completed(self) -> bool:
        """True once the action has a result, good or bad."""
        return self._result is not None

    def complete(self, result: Result[T]) -> UIActionResult[T]:
        """Say how the action ended.

        Raises:
            InvalidStateError: the action has a result already.
        """
        if self._result is not None:
            raise InvalidStateError(f"{self!r} has a result already; make a UIAction for each run.")
        self._result = completed = UIActionResult(
            self.id, self.command, result, self.started_at, current_clock().now()
        )
        self._completed.call(completed)
        self._completed.clear()
        return completed

    def on_completed(self, handler: Callable[[UIActionResult[T]], object]) -> Callable[[], None]:
        """Call a function with the result when there is one: at once, if it is there already.

        Errors of the function are logged to "afresh.ui".

        Returns:
            A function that ends this.
        """
        if self._result is None:
            return self._completed.add(handler)
        late = Handlers[UIActionResult[T]](_logger)
        remove = late.add(handler)
        late.call(self._result)
        return remove

    async def when_completed(self) -> UIActionResult[T]:
        """Wait for the result; never raises the error of the action itself."""
        if self._result is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            unsubscribe = self.on_completed(lambda _: _finish(waiter, None))
            try:
                await waiter
            finally:
                unsubscribe()
        return cast("UIActionResult[T]", self._result)

    def __repr__(self) -> str:
        state = "running" if self._result is None else "ok" if self._result.is_ok else "failed"
        return f"<UIAction {self.id} {self.command!r} {state}>"


@dataclass(frozen=True, slots=True, eq=False)
class UIActionResult(Generic[T_co]):
    """How an action ended: its value or error, and when."""

    # The action itself is not among these: it refers to its result, and cycles live longer.
    action_id: int
    """The `id` of the action that ended."""
    command: object
    """What the user had asked for."""
    result: Result[T_co]
    """The value or error."""
    started_at: float
    """When the action started, in seconds of the clock."""
    completed_at: float
    """When it ended, in seconds of the clock."""

    @property
    def value(self) -> T_co:
        """The value; raises the error when there is one."""
        return self.result.value

    @property
    def error(self) -> BaseException | None:
        """The error, or None when there is a value."""
        return self.result.error

    @property
    def is_ok(self) -> bool:
        """True when there is a value."""
        return self.result.is_ok

    @property
    def duration(self) -> float:
        """How long the action took, in seconds."""
        return self.completed_at - self.started_at

    @property
    def was_cancelled(self) -> bool:
        """True when the action was cancelled."""
        return isinstance(self.result.error, asyncio.CancelledError)


class UIActionTracker:
    """The actions of one user: those that run, and the last one that ended.

    While an action runs, and for a moment after, instant updates are enabled: a `UIDelayer` with
    this tracker lets states update without delay, so that the user sees what the action brought
    about.

    ```python
    tracker = UIActionTracker()
    order = await tracker.call(orders.place(command))  # raises what that raises
    outcome = await tracker.run(orders.place(command))  # keeps it in outcome.error
    ```

    Args:
        instant_update_period: for how many seconds after an action instant updates stay enabled.

    Raises:
        ValueError: `instant_update_period` is negative or not a number.
    """

    __slots__ = (
        "__weakref__",
        "_ended",
        "_last_action",
        "_last_result",
        "_running_count",
        "_started",
        "_stopped",
        "_waiters",
        "instant_update_period",
    )

    def __init__(self, *, instant_update_period: float = 0.3) -> None:
        if not instant_update_period >= 0:
            raise ValueError(
                f"The instant update period is {instant_update_period}; pass seconds, 0 or more."
            )
        self.instant_update_period: float = instant_update_period
        """For how many seconds after an action instant updates stay enabled."""
        self._running_count = 0
        self._last_action: UIAction[Any] | None = None
        self._last_result: UIActionResult[Any] | None = None
        self._started = Handlers[UIAction[Any]](_logger)
        self._ended = Handlers[UIActionResult[Any]](_logger)
        self._waiters: set[asyncio.Future[bool]] = set()  # done with False when stopped
        self._stopped = False

    # -- what is going on

    @property
    def running_count(self) -> int:
        """How many actions run."""
        return self._running_count

    @property
    def last_action(self) -> UIAction[Any] | None:
        """The action that started last."""
        return self._last_action

    @property
    def last_result(self) -> UIActionResult[Any] | None:
        """The result of the action that ended last."""
        return self._last_result

    @property
    def is_stopped(self) -> bool:
        """True after `stop()`."""
        return self._stopped

    @property
    def instant_updates_enabled(self) -> bool:
        """True while an action runs, and for `instant_update_period` after the last one ended."""
        if self._running_count > 0:
            return True
        last = self._last_result
        if last is None:
            return False
        return current_clock().now() <= last.completed_at + self.instant_update_period

    async def when_instant_updates_enabled(self) -> None:
        """Wait until the next action starts; return at once when instant updates are enabled.

        Raises:
            InvalidStateError: the tracker is stopped, before or meanwhile, so no action can follow.
        """
        if self.instant_updates_enabled:
            return
        goes_on = not self._stopped
        if goes_on:
            waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                goes_on = await waiter
            finally:
                self._waiters.discard(waiter)
        if not goes_on:
            raise InvalidStateError(
                "The tracker of user actions is stopped, so no further action can enable instant "
                "updates; stop waiting when the page closes, or make a new tracker."
            )

    def on_action(self, handler: Callable[[UIAction[Any]], object]) -> Callable[[], None]:
        """Call a function with each action that starts from now on.

        Errors of the function are logged to "afresh.ui".

        Returns:
            A function that ends this.
        """
        return self._started.add(handler)

    def on_result(self, handler: Callable[[UIActionResult[Any]], object]) -> Callable[[], None]:
        """Call a function with the result of each action that ends from now on.

        Errors of the function are logged to "afresh.ui".

        Returns:
            A function that ends this.
        """
        return self._ended.add(handler)

    # -- actions

    def register(self, action: UIAction[Any]) -> None:
        """Follow an action that something else runs and completes. A stopped tracker ignores it.

        A completed one may be registered, too, when something happened that should show at once,
        such as a sign-in.
        """
        if self._stopped:
            return
        self._running_count += 1
        self._last_action = action
        for waiter in self._waiters:
            _finish(waiter, True)
        self._started.call(action)
        action.on_completed(self._note_completed)

    async def call(
        self, work: Awaitable[T] | Callable[[], Awaitable[T] | T], *, command: object = None
    ) -> T:
        """Run something as an action of the user.

        A stopped tracker runs it all the same, and does not track it.

        Args:
            work: an awaitable, such as the call of an async function, or a function without
                arguments, async or not.
            command: what the user asked for; the name of `work` when not given.

        Returns:
            What `work` returns.

        Raises:
            BaseException: what `work` raises.
        """
        action: UIAction[T] = UIAction(_name_of(work) if command is None else command)
        self.register(action)
        try:
            value = await _perform(work)
        except BaseException as error:
            action.complete(Result.err(error))
            raise
        else:
            action.complete(Result.ok(value))
            return value
        finally:
            del action  # or else: error → traceback → this frame → action → error

    async def run(
        self, work: Awaitable[T] | Callable[[], Awaitable[T] | T], *, command: object = None
    ) -> UIActionResult[T]:
        """Run something as an action of the user, and return its result, good or bad.

        Takes the same as `call`. An error is logged to "afresh.ui", with the traceback that it then
        loses: results are kept for long, and a traceback keeps all variables of the functions in
        it.

        Raises:
            CancelledError: the task that called this was cancelled, or the action was.
            BaseException: what ends programs, such as `KeyboardInterrupt`.
        """
        action: UIAction[T] = UIAction(_name_of(work) if command is None else command)
        self.register(action)
        try:
            result: Result[T] = Result.ok(await _perform(work))
        except Exception as error:
            _logger.warning("%r ended with an error.", action, exc_info=True)
            result = Result.err(error.with_traceback(None))
        except BaseException as error:
            action.complete(Result.err(error))
            del action  # as in `call`
            raise
        return action.complete(result)

    def stop(self) -> None:
        """Stop tracking, when the page closes; actions that still run go on, and are ignored.

        The tracker lets go of the last action and the last result.
        """
        self._stopped = True
        self._running_count = 0
        # A failed call's error refers to this tracker by way of its traceback.
        self._last_action = self._last_result = None
        self._started.clear()
        self._ended.clear()
        for waiter in self._waiters:
            _finish(waiter, False)

    def _note_completed(self, result: UIActionResult[Any]) -> None:
        if self._stopped:
            return
        self._running_count -= 1
        self._last_result = result
        self._ended.call(result)


async def _perform(work: Awaitable[T] | Callable[[], Awaitable[T] | T]) -> T:
    if isinstance(work, Awaitable):
        return await work
    outcome = work()
    if inspect.isawaitable(outcome):
        return cast(T, await outcome)
    return outcome


def _finish(waiter: asyncio.Future[T], result: T) -> None:
    # A loop may be closed while one of its tasks still waits; nobody is left to wake up then.
    if not waiter.done() and not waiter.get_loop().is_closed():
        waiter.set_result(result)


def _name_of(work: object) -> str:
    # Not `work` itself: it may refer to a whole page, and the last action is kept for long.
    name = getattr(work, "__qualname__", None)
    return name if isinstance(name, str) else type(work).__qualname__
