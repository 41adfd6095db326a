"""What a state is at one moment, and a way to wait until that moment is over."""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar

from afresh.graph.cached_errors import fresh_copy
from afresh.graph.computed import Computed, is_transient_failure
from afresh.graph.producer import enter_loop

__all__ = ["Snapshot"]

T_co = TypeVar("T_co", covariant=True)


class Signal:
    """Happens once, or fails once; any number of tasks may wait for it."""

    __slots__ = ("_outcome", "_waiters")

    def __init__(self) -> None:
        self._outcome: bool | BaseException = False
        self._waiters: dict[asyncio.Future[None], None] | None = None

    def set(self, failure: BaseException | None = None) -> bool:
        """Let it happen, or fail, unless that was done before; returns whether it was not."""
        if self._outcome:
            return False
        self._outcome = failure if failure is not None else True
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            # A loop may be closed while a task of it still waits; nobody is left to wake up then.
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)
        return True

    async def wait(self) -> None:
        """Return when it has happened.

        Raises:
            BaseException: a copy of the error that it failed with.
        """
        if not self._outcome:
            if self._waiters is None:
                self._waiters = {}
            waiter: asyncio.Future[None] = enter_loop().create_future()
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                if self._waiters is not None:
                    self._waiters.pop(waiter, None)
        if isinstance(self._outcome, BaseException):
            raise fresh_copy(self._outcome)


class Snapshot(Generic[T_co]):
    """One generation of a state: its result, and how it came to it. Immutable.

    Attributes:
        computed: the result.
        last_good: the latest result that was no error (the initial one, if there was none).
        update_count: how many results there were since the initial one.
        error_count: how many of them were errors.
        retry_count: how many transient errors there were in a row, up to this one.
    """

    __slots__ = (
        "_updated",
        "_updating",
        "computed",
        "error_count",
        "last_good",
        "retry_count",
        "update_count",
    )

    computed: Computed[T_co]
    last_good: Computed[T_co]
    update_count: int
    error_count: int
    retry_count: int

    def __init__(self, computed: Computed[T_co], previous: Snapshot[Any] | None = None) -> None:
        self.computed = computed
        self._updating = Signal()
        self._updated = Signal()
        if previous is None:
            self.last_good = computed
            self.update_count = self.error_count = self.retry_count = 0
            return
        self.update_count = previous.update_count + 1
        if computed.error is None:
            self.last_good = computed
            self.error_count = previous.error_count
            self.retry_count = 0
        else:
            self.last_good = previous.last_good
            self.error_count = previous.error_count + 1
            self.retry_count = previous.retry_count + 1 if is_transient_failure(computed) else 0

    @property
    def is_initial(self) -> bool:
        """Whether nothing was computed or set yet."""
        return self.update_count == 0

    async def when_invalidated(self) -> None:
        """Return when the result is stale."""
        await self.computed.when_invalidated()

    async def when_updating(self) -> None:
        """Return when the computation of the next result has begun, or is over."""
        await self._updating.wait()

    async def when_updated(self) -> None:
        """Return when the next snapshot has taken the place of this one.

        Raises:
            InvalidStateError: the state was closed first.
        """
        await self._updated.wait()

    def superseded(self, failure: BaseException | None = None) -> None:
        """Release those who wait: the next snapshot is there, or will never be."""
        self._updating.set(failure)
        self._updated.set(failure)

    def updating(self) -> bool:
        """Release those who wait for the next computation to begin; returns whether it had not
        begun before.
        """
        return self._updating.set()

    def __repr__(self) -> str:
        return (
            f"<Snapshot #{self.update_count} of {self.computed!r}: "
            f"{self.error_count} errors, {self.retry_count} in a row>"
        )
