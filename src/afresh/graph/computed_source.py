"""`ComputedSource`: a result without a service, around one async function."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from afresh.errors import DefinitionError

from . import causes
from .computed import Computed
from .options import ComputedOptions
from .producer import Producer, settle

__all__ = ["ComputedSource"]

T = TypeVar("T")


class _SourceProducer(Producer):
    __slots__ = ("source",)

    def __init__(self, source: ComputedSource[Any], options: ComputedOptions) -> None:
        super().__init__(source._compute, options)
        self.source = source
        self.is_observed = True

    @property
    def category(self) -> str:
        return self.source.category

    def starting(self, computed: Computed[Any]) -> None:
        self.source._computed = computed


class ComputedSource(Generic[T]):
    """One value that is computed when it is asked for, and cached until something it used changes.

    Unlike a state it never updates by itself. What it holds is found in `computed`, also while it
    is being computed.

    Args:
        function: computes the value.
        initial: the value of `computed` before anything was computed; stale from the start.
        options: how results go stale.
        category: what it is called in logs and tools.

    Example:
        ```python
        source = ComputedSource(lambda: fetch_rates())
        rates = await source.use()
        ```
    """

    def __init__(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        initial: Any = None,
        options: ComputedOptions | None = None,
        category: str | None = None,
    ) -> None:
        options = options if options is not None else ComputedOptions(keep_alive=math.inf)
        if options.consolidates:
            raise DefinitionError("A ComputedSource can't consolidate its results.")
        self._function = function
        self.category: str = category if category is not None else "ComputedSource"
        """What it is called in logs and tools."""
        producer = _SourceProducer(self, options)
        self._computed: Computed[T] = settle(producer, initial)
        self._computed.invalidate(now=True, cause=causes.INITIAL)

    async def _compute(self) -> T:
        return await self._function()

    @property
    def computed(self) -> Computed[T]:
        """The latest result; while one is being computed, that one."""
        return self._computed

    def use(self) -> Coroutine[Any, Any, T]:
        """Return the fresh value; the running computation then depends on it.

        Returns:
            An awaitable of the value.

        Raises:
            Exception: the computation failed.
            InvalidStateError: the call is made inside `invalidating()`.
        """
        return self._computed.use()

    async def update(self) -> Computed[T]:
        """Return the fresh result, computing it if need be; adds no dependency."""
        return await self._computed.update()

    def invalidate(self, *, after: float = 0.0, cause: str | None = None) -> None:
        """Make the result stale; one that is being computed will be, as soon as it is there.

        Args:
            after: seconds to wait.
            cause: recorded with the result; where the call was written, by default.
        """
        self._computed.invalidate(after=after, cause=cause if cause is not None else causes.here())

    async def recompute(self) -> Computed[T]:
        """Make the result stale and return a fresh one."""
        self._computed.invalidate(now=True, cause=causes.RECOMPUTED)
        return await self.update()

    def __repr__(self) -> str:
        return f"<ComputedSource {self.category}: {self._computed!r}>"
