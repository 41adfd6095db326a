"""What all states share: the latest snapshot, events, reading and following it."""

from __future__ import annotations

import enum
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, ClassVar, Generic, TypeVar

from afresh.errors import DefinitionError, InvalidStateError
from afresh.graph._context import current
from afresh.graph.causes import RECOMPUTED, STATE_CLOSED, here
from afresh.graph.computed import Computed
from afresh.graph.options import ComputedOptions
from afresh.graph.producer import Producer
from afresh.graph.synchronizer import Synchronization
from afresh.primitives.handlers import Handlers

from .snapshot import Snapshot

__all__ = ["State", "StateEvent"]

T = TypeVar("T")

_log = logging.getLogger("afresh.states")


class StateEvent(enum.Flag):
    """What happens to a state; for each generation in this order."""

    INVALIDATED = enum.auto()
    """The result went stale; exactly once for each."""
    UPDATING = enum.auto()
    """The computation of the next one begins."""
    UPDATED = enum.auto()
    """The next one is there."""


class StateProducer(Producer):
    """The producer behind a state: tells it what happens to its results."""

    __slots__ = ("state",)

    def __init__(self, state: State[Any], body: Any, options: ComputedOptions) -> None:
        super().__init__(body, options)
        self.state: State[Any] = state
        self.is_observed = True

    @property
    def category(self) -> str:
        return self.state.category

    def stored(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.state._check_open()  # the first thing that happens when something is to be computed
        return args

    def starting(self, computed: Computed[Any]) -> None:
        computed._with_extra()  # so that `forget` is called
        self.state._starting()

    def published(self, computed: Computed[Any]) -> None:
        self.state._publish(computed)

    def synchronization(self, computed: Computed[Any]) -> Synchronization:
        return self.state._synchronization

    def forget(self, computed: Computed[Any]) -> None:
        super().forget(computed)
        self.state._forget(computed)


class State(ABC, Generic[T]):
    """A result with a history: `MutableState` and `ComputedState`.

    `value`, `error` and the like are what is there at the moment, and never make a computation
    depend on the state; `use()` does.
    """

    default_options: ClassVar[ComputedOptions] = ComputedOptions()

    def __init__(
        self,
        body: Callable[[], Any],
        *,
        options: ComputedOptions | None,
        category: str | None,
        configure: Callable[[Any], object] | None,
    ) -> None:
        options = options if options is not None else type(self).default_options
        if options.consolidates:
            raise DefinitionError(
                f"{type(self).__name__} can't consolidate its results: an update that changes "
                "nothing is cheap there. Give consolidate= to the compute method it reads."
            )
        self.category: str = category if category is not None else type(self).__name__
        """What the state is called in logs and tools."""
        self._producer = StateProducer(self, body, options)
        self._handlers: Handlers[tuple[Any, StateEvent]] = Handlers(_log)
        self._announced = 0
        self._synchronization = Synchronization(lambda: self.is_confirmed, self.when_ready)
        self._snapshot: Snapshot[T]
        if configure is not None:
            configure(self)

    # -- reading

    @property
    def snapshot(self) -> Snapshot[T]:
        """The latest generation as a whole: read it once to get things that belong together."""
        return self._snapshot

    @property
    def computed(self) -> Computed[T]:
        """The latest result as a node of the graph."""
        return self._snapshot.computed

    @property
    def value(self) -> T:
        """The latest value.

        Raises:
            Exception: the latest result is an error.
        """
        return self._snapshot.computed.value

    @property
    def value_or_none(self) -> T | None:
        """The latest value, or None if the latest result is an error."""
        return self._snapshot.computed.value_or_none

    @property
    def error(self) -> BaseException | None:
        """The latest error, or None if the latest result is a value."""
        return self._snapshot.computed.error

    @property
    def last_value(self) -> T:
        """The latest value that there was, even if an error came after it."""
        last: T = self._snapshot.last_good.value
        return last

    @property
    def is_initial(self) -> bool:
        """Whether nothing was computed or set yet."""
        return self._snapshot.is_initial

    @property
    def is_confirmed(self) -> bool:
        """Whether the latest result is more than an initial value; see `afresh.Synchronizer`."""
        return not self.is_initial

    @property
    def options(self) -> ComputedOptions:
        """How results go stale."""
        return self._producer.options

    # -- renewing and following

    async def update(self) -> Computed[T]:
        """Return the fresh result, computing it if need be; adds no dependency."""
        return await self._snapshot.computed.update()

    def invalidate(self, *, after: float = 0.0, cause: str | None = None) -> None:
        """Make the result stale; one that is being computed will be, as soon as it is there.

        Args:
            after: seconds to wait.
            cause: recorded with the result; where the call was written, by default.
        """
        existing = self._producer.existing(()) or self._snapshot.computed
        existing.invalidate(after=after, cause=cause if cause is not None else here())

    async def recompute(self) -> Computed[T]:
        """Make the result stale and return a fresh one, without the usual delay."""
        existing = self._producer.existing(()) or self._snapshot.computed
        existing.invalidate(now=True, cause=RECOMPUTED)
        return await self.update()

    async def when_updated(self) -> None:
        """Return when the next result is there.

        Raises:
            InvalidStateError: the state was closed first.
        """
        self._resume()
        await self._snapshot.when_updated()

    async def when_ready(self) -> None:
        """Return when something was computed or set.

        Raises:
            InvalidStateError: the state was closed first.
        """
        if self.is_initial:
            await self.when_updated()

    async def changes(self) -> AsyncGenerator[Computed[T], None]:
        """Yield the latest result, then every next one (errors too), until the state is closed.

        Results that come and go between two steps of the loop are skipped; the initial one is not
        a result.
        """
        snapshot = self._snapshot
        while True:
            if not snapshot.is_initial:
                yield snapshot.computed
            if snapshot is self._snapshot:
                self._resume()
                try:
                    await snapshot.when_updated()
                except InvalidStateError:
                    return
            snapshot = self._snapshot

    def __aiter__(self) -> AsyncIterator[T]:
        """Iterate over the values of `changes()`; an error among them is raised."""
        return self._values()

    async def _values(self) -> AsyncGenerator[T, None]:
        async for computed in self.changes():
            yield computed.value

    def on(
        self, events: StateEvent, handler: Callable[[Any, StateEvent], object]
    ) -> Callable[[], None]:
        """Call `handler(state, event)` at each of `events`.

        Args:
            events: one or several: ``StateEvent.INVALIDATED | StateEvent.UPDATED``.
            handler: an error in it is logged.

        Returns:
            A function that removes the handler.
        """

        def call(happened: tuple[Any, StateEvent]) -> None:
            if happened[1] in events:
                handler(*happened)

        functools.update_wrapper(call, handler, updated=())  # for the log, should it fail
        return self._handlers.add(call)

    # -- for the producer

    def _starting(self) -> None:
        if self._snapshot.updating():  # else the last attempt was cancelled, and this is the next
            self._fire(StateEvent.UPDATING)

    def _publish(self, computed: Computed[T]) -> None:
        previous = self._snapshot
        self._snapshot = Snapshot(computed, previous)
        previous.superseded()
        self._fire(StateEvent.UPDATED)
        if computed.is_invalidated:
            self._forget(computed)

    def _forget(self, computed: Computed[T]) -> None:
        # A result may go stale before it is published, and is announced then; and no result is
        # announced twice.
        if computed is self._snapshot.computed and self._announced != computed.version:
            self._announced = computed.version
            try:
                self._fire(StateEvent.INVALIDATED)
            finally:  # also if a handler ends the program: the next one may catch that
                self._after_invalidation()

    @abstractmethod
    def _after_invalidation(self) -> None:
        """Called when the latest result went stale."""

    def _check_open(self) -> None:
        """Called before something is computed; raises if the state is closed."""

    def _resume(self) -> None:
        """Called before somebody waits for an update."""

    def _fire(self, event: StateEvent) -> None:
        if not self._handlers:
            return
        # What handlers read is no dependency of whoever changes the state, and no scope of theirs
        # gives calls of handlers another meaning.
        token = current.set(None)
        try:
            self._handlers.call((self, event))
        finally:
            current.reset(token)

    def _close(self) -> None:
        self._snapshot.superseded(
            InvalidStateError(f"{self!r} is closed, so there will be no update; make a new state.")
        )
        self._snapshot.computed.invalidate(now=True, cause=STATE_CLOSED)

    def __repr__(self) -> str:
        computed = self._snapshot.computed
        kind = "initial" if self.is_initial else f"update {self._snapshot.update_count}"
        state = "consistent" if computed.is_consistent else "stale"
        if computed.error is not None:
            state += f" with {type(computed.error).__name__}"
        return f"<{type(self).__name__} {self.category}: {kind}, {state}>"
