"""`Computed`: one node of the graph as user code sees it.

The kernel keeps its state and edges; here is what can be done with it: read it, renew it, depend on
it, wait for it to go stale, follow its successors.
"""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar, cast, runtime_checkable

from afresh.errors import InvalidStateError
from afresh.primitives.clock import Timer, current_clock
from afresh.primitives.result import Result
from afresh.primitives.transience import Transience, transience_of

from . import causes
from ._context import (
    COMPUTING,
    CONSISTENT,
    DELAY_RUNS,
    INVALIDATED,
    SCOPE,
    current,
)
from ._kernel import Node, invalidate
from .cached_errors import fresh_copy
from .synchronizer import current_synchronizer

if TYPE_CHECKING:
    from .consolidation import Consolidation
    from .options import ComputedOptions
    from .producer import Producer

__all__ = ["Computed", "UpdateDelayer"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_log = logging.getLogger("afresh.graph")

_STATES = {COMPUTING: "computing", CONSISTENT: "consistent", INVALIDATED: "invalidated"}

NEXT_TICK = 0.015
"""Seconds between the generations that `changes()` and `when()` look at, unless told otherwise."""


@runtime_checkable
class UpdateDelayer(Protocol):
    """What decides how long to wait between an invalidation and the update that follows it."""

    async def delay(self, retry_count: int) -> None:
        """Wait before the next update.

        Args:
            retry_count: how many attempts in a row have failed with a transient error; 0 when
                the last one succeeded.
        """


class Extra:
    """What only some nodes have: handlers, a timer, callers that wait for the result."""

    __slots__ = ("consolidation", "handlers", "origin", "timer", "waiters")

    def __init__(self) -> None:
        self.handlers: dict[Callable[[Any], object], None] | None = None
        self.timer: Timer | None = None
        self.waiters: list[asyncio.Future[None]] | None = None
        self.consolidation: Consolidation | None = None
        self.origin: Any = None
        """Where the result came from, for producers that get theirs from elsewhere."""

    @property
    def is_watched(self) -> bool:
        """Whether a handler waits for the invalidation of this very node."""
        return any(not getattr(handler, "is_weak", False) for handler in self.handlers or ())


class Computed(Node, Generic[T_co]):
    """One generation of a cached result: its value or error, and whether that is still fresh.

    `svc.get.capture(...)` gives the one behind a call. It never changes its result; when that goes
    stale, `update()` gives its successor. Holding a `Computed` keeps it, and everything that it was
    computed from, in memory.

    Example:
        ```python
        computed = await counters.get.capture("a")
        await computed.when_invalidated()
        computed = await computed.update()
        ```
    """

    __slots__ = ()

    if TYPE_CHECKING:
        keeper: Producer
        extra: Extra | None
        flags: int

        def __init__(
            self,
            keeper: Producer,
            key: Any,
            args: tuple[Any, ...],
            parent: Any = None,
            flags: int = 0,
        ) -> None: ...

    # -- reading

    @property
    def is_computing(self) -> bool:
        """Whether its body still runs, so that there is no result yet."""
        return self.state == COMPUTING

    @property
    def is_consistent(self) -> bool:
        """Whether the result is there and fresh."""
        return self.state == CONSISTENT

    @property
    def is_invalidated(self) -> bool:
        """Whether the result is stale; once so, it stays so."""
        return self.state == INVALIDATED

    @property
    def value(self) -> T_co:
        """The value.

        Raises:
            InvalidStateError: it is still being computed.
            Exception: the computation failed; a fresh copy of its error is raised.
        """
        if self._error is not None or self.state == COMPUTING:
            self._raise()
        return cast(T_co, self._value)

    @property
    def value_or_none(self) -> T_co | None:
        """The value, or None when the computation failed.

        Raises:
            InvalidStateError: it is still being computed.
        """
        return self.output.value_or_none

    @property
    def error(self) -> BaseException | None:
        """The error that the computation ended with, or None.

        Raises:
            InvalidStateError: it is still being computed.
        """
        if self.state == COMPUTING:
            self._raise()
        return self._error

    @property
    def output(self) -> Result[T_co]:
        """Value or error as one object.

        Raises:
            InvalidStateError: it is still being computed.
        """
        error = self.error
        return Result.ok(cast(T_co, self._value)) if error is None else Result.err(error)

    def __iter__(self) -> Iterator[Any]:
        """Unpack into the value (None on failure) and the error (None on success)."""
        error = self.error
        yield None if error is not None else self._value
        yield error

    @property
    def options(self) -> ComputedOptions:
        """The options of its compute method or state."""
        return self.keeper.options

    @property
    def category(self) -> str:
        """What it is a result of, without the arguments: "Orders.for_user"."""
        return self.keeper.category

    @property
    def invalidation_cause(self) -> causes.InvalidationCause | None:
        """Why it went stale; None as long as it did not."""
        if self.state != INVALIDATED:
            return None
        return causes.InvalidationCause(self.cause if self.cause is not None else causes.UNKNOWN)

    @property
    def consolidation(self) -> Consolidation | None:
        """For a result of a consolidating method: the hidden source, and the comparison under
        way.
        """
        return None if self.extra is None else self.extra.consolidation

    def describe(self) -> str:
        """What it is a result of, with the arguments: "Orders.for_user('u1')"."""
        return self.keeper.describe(self)

    def __repr__(self) -> str:
        text = f"<Computed {self.describe()} #{self.version} {_STATES[self.state]}"
        if self.state == INVALIDATED:
            text += f" by {self.invalidation_cause}"
        elif self.state == CONSISTENT and self._error is not None:
            text += f" with {type(self._error).__name__}"
        return text + ">"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A Computed can't be pickled or copied: it is a place in this process's graph. "
            "Take its value."
        )

    # -- renewing and using

    async def update(self) -> Computed[T_co]:
        """Return a fresh result: itself while it is one, else its successor, computed if need be.

        Never adds a dependency, wherever it is called. By the time the caller looks, the successor
        may be stale again.
        """
        if self.state == CONSISTENT:
            return self
        return await self.keeper.renew(self)

    def use(self, *, allow_inconsistent: bool = False) -> Coroutine[Any, Any, T_co]:
        """Return the fresh value, as a call would: in a compute method it becomes a dependency.

        Args:
            allow_inconsistent: take this very result even if it is stale; a result computed from it
                is then stale from the start.

        Returns:
            An awaitable of the value.

        Raises:
            InvalidStateError: inside `invalidating()` or a scope that only looks at what exists, or
                the result is not there yet and `allow_inconsistent` asks for it.
        """
        context = current.get()
        if context is not None and context.state == SCOPE and not context.computes:
            raise InvalidStateError(
                f"{self.describe()} can't be used inside {context.name}: nothing is computed there."
            )
        if allow_inconsistent and self.state == COMPUTING:
            self._raise()
        if self.state == CONSISTENT or allow_inconsistent:
            self._touch()
            if context is not None:
                context._use(self)
            return cast("Coroutine[Any, Any, T_co]", self)
        return self.keeper.renewed_value(self, context)

    # -- going stale

    def invalidate(
        self, *, after: float = 0.0, now: bool = False, cause: str | None = None
    ) -> None:
        """Make the result stale, and all results that were computed from it.

        Never raises for the state it finds: on a result that is still being computed it takes
        effect when that is there; on a stale one it does nothing.

        Args:
            after: seconds to wait; of several such calls the earliest counts. `math.inf` is never.
            now: skip the `invalidation_delay` that the options may ask for.
            cause: recorded as `invalidation_cause`; where the call was written, by default.
        """
        if self.cause is None or after > 0:
            why = cause if cause is not None else causes.here()
        else:
            why = self.cause
        if after > 0:
            self._schedule(after, why)
        else:
            invalidate(self, why, now)

    def on_invalidated(self, handler: Callable[[Computed[T_co]], object]) -> Callable[[], None]:
        """Call `handler(self)` when the result goes stale; at once if it is.

        Handlers run once, in the order in which they were added, before the results that depend on
        this one are touched. The same handler is kept once. An exception in one is logged; what
        asks the program to end, such as `KeyboardInterrupt`, is raised when all results are stale.

        Returns:
            A function that removes the handler.
        """
        if self.state == INVALIDATED:
            self._run_handlers((handler,))
            return lambda: None
        self._add_handler(handler)
        return lambda: self._remove_handler(handler)

    def _add_handler(self, handler: Callable[[Any], object]) -> None:
        extra = self._with_extra()
        if extra.handlers is None:
            extra.handlers = {}
        extra.handlers[handler] = None

    def _remove_handler(self, handler: Callable[[Any], object]) -> None:
        if self.extra is not None and self.extra.handlers is not None:
            self.extra.handlers.pop(handler, None)

    async def when_invalidated(self) -> None:
        """Return when the result is stale."""
        if self.state == INVALIDATED:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def handler(_: Computed[Any]) -> None:
            wake_up(future)

        self._add_handler(handler)
        try:
            await future
        finally:
            self._remove_handler(handler)

    # -- being confirmed

    def is_synchronized(self) -> bool:
        """Whether the synchronizer in force takes the result for confirmed."""
        return current_synchronizer().is_synchronized(self)

    async def when_synchronized(self) -> None:
        """Return when the synchronizer in force takes the result for confirmed."""
        await current_synchronizer().when_synchronized(self)

    async def synchronize(self) -> Computed[T_co]:
        """Return a confirmed result: this one or, if it went stale meanwhile, its successor."""
        return await current_synchronizer().synchronize(self)

    # -- following

    async def changes(
        self, delayer: UpdateDelayer | float = NEXT_TICK
    ) -> AsyncGenerator[Computed[T_co], None]:
        """Yield this result's fresh successor, then every next one; ends only when closed.

        A failed computation is yielded like any other result. Generations that come and go within
        the delay are skipped.

        Args:
            delayer: seconds between an invalidation and the update, or an update delayer.

        Example:
            ```python
            async for computed in (await counters.get.capture("a")).changes():
                print(computed.value)
            ```
        """
        retry_count = 0
        computed: Computed[T_co] = self
        while True:
            computed = await computed.update()
            retry_count = retry_count + 1 if is_transient_failure(computed) else 0
            yield computed
            await computed.when_invalidated()
            await wait_for_update(delayer, retry_count)

    async def when(
        self, predicate: Callable[[T_co], bool], delayer: UpdateDelayer | float = NEXT_TICK
    ) -> Computed[T_co]:
        """Return the first fresh result whose value satisfies `predicate`.

        Raises:
            Exception: the error of a computation that failed meanwhile. `when_result` gives those
                to the predicate instead.
        """
        return await self._when(lambda computed: predicate(computed.value), delayer)

    async def when_result(
        self,
        predicate: Callable[[T_co | None, BaseException | None], bool],
        delayer: UpdateDelayer | float = NEXT_TICK,
    ) -> Computed[T_co]:
        """Return the first fresh result whose value (None on failure) and error satisfy
        `predicate`.
        """
        return await self._when(lambda computed: predicate(*computed), delayer)

    async def _when(
        self, accepts: Callable[[Computed[T_co]], bool], delayer: UpdateDelayer | float
    ) -> Computed[T_co]:
        computed: Computed[T_co] = self
        while True:
            computed = await computed.update()
            if accepts(computed):
                return computed
            await computed.when_invalidated()
            await wait_for_update(delayer, 0)

    @staticmethod
    def of(function: Callable[[], Awaitable[T]]) -> Computed[T]:
        """Return an anonymous computed around an async function, to `update()`, `use()` or follow.

        It starts out stale and without a value: the first `update()` computes one.

        Args:
            function: computes the value; the compute methods it calls become dependencies.
        """
        from .computed_source import ComputedSource

        return ComputedSource(function).computed

    # -- for the kernel and the producers

    def _raise(self) -> NoReturn:
        if self.state == COMPUTING:
            raise InvalidStateError(
                f"{self!r} has no result yet; await the call, or `update()`, instead."
            )
        assert self._error is not None
        raise fresh_copy(self._error)

    def _hit(self, node: Any) -> Any:
        # Called when this node's body made a call after the node was finished.
        return node

    def _with_extra(self) -> Extra:
        extra = self.extra
        if extra is None:
            extra = self.extra = Extra()
        return extra

    def _replaced(self) -> None:
        invalidate(self, causes.REPLACED, True)

    def _delay(self) -> None:
        if not self.flags & DELAY_RUNS:
            self.flags |= DELAY_RUNS
            self._schedule(self.keeper.options.invalidation_delay, self.cause)

    def _schedule(self, delay: float, cause: Any) -> None:
        if self.state == INVALIDATED or delay == math.inf:
            return
        if delay <= 0:
            invalidate(self, cause, True)
            return
        clock = current_clock()
        extra = self._with_extra()
        if extra.timer is not None:
            if extra.timer.is_active and extra.timer.due <= clock.now() + delay:
                return
            extra.timer.cancel()
        reference = weakref.ref(self)  # nobody's result stays in memory for its timer's sake

        def expire() -> None:
            computed = reference()
            if computed is not None:
                invalidate(computed, cause, True)

        extra.timer = clock.call_later(delay, expire)

    def _gone(self) -> None:
        self.keeper.forget(self)
        extra = self.extra
        if extra is not None:
            if extra.timer is not None:
                extra.timer.cancel()
                extra.timer = None
            handlers, extra.handlers = extra.handlers, None
            if handlers:
                self._run_handlers(tuple(handlers))

    def _run_handlers(self, handlers: tuple[Callable[[Any], object], ...]) -> None:
        # Outside any scope of whoever invalidates: a handler that calls compute methods means it.
        token = current.set(None)
        interruption: BaseException | None = None
        try:
            for handler in handlers:
                try:
                    handler(self)
                except (KeyboardInterrupt, SystemExit) as error:
                    interruption = error
                except BaseException:
                    _log.exception("A handler of the invalidation of %s failed.", self.describe())
        finally:
            current.reset(token)
        if interruption is not None:
            raise interruption


def wake_up(waiter: asyncio.Future[None]) -> None:
    """Let go on who awaits `waiter`."""
    # A loop may be closed while a task of it still waits; nobody is left to wake up then.
    if not waiter.done() and not waiter.get_loop().is_closed():
        waiter.set_result(None)


def is_transient_failure(computed: Computed[Any]) -> bool:
    """Whether it ended with an error that may pass by itself."""
    error = computed.error
    return error is not None and transience_of(error) in {
        Transience.TRANSIENT,
        Transience.SUPER_TRANSIENT,
    }


async def wait_for_update(delayer: UpdateDelayer | float, retry_count: int) -> None:
    """Wait as `delayer` says: seconds, or an update delayer."""
    if isinstance(delayer, (int, float)):
        await current_clock().sleep(delayer)
    else:
        await delayer.delay(retry_count)
