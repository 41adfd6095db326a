"""`MutableState`: a variable that takes part in the graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from afresh.errors import DefinitionError
from afresh.graph._context import current
from afresh.graph.causes import STATE_SET
from afresh.graph.computed import Computed
from afresh.graph.options import ComputedOptions
from afresh.graph.producer import settle
from afresh.primitives.result import Result

from .snapshot import Snapshot
from .state import State

__all__ = ["MutableState"]

T = TypeVar("T")

_LIFETIMES = ("auto_invalidate", "transient_error_delay", "error_delay")


class MutableState(State[T]):
    """A variable: what is computed from it goes stale when it is set.

    Always fresh: when its result is invalidated, by whatever, the next one is there before anybody
    is told. Needs no event loop and no closing.

    Args:
        value: the initial value.
        options: how results go stale; by default only by being set.
        category: what the state is called in logs and tools.
        configure: called with the state before anything happens to it, to attach handlers.

    Example:
        ```python
        query = MutableState("")
        query.set("tea")
        ```
    """

    default_options: ClassVar[ComputedOptions] = ComputedOptions(
        transient_error_delay=math.inf, error_delay=math.inf
    )

    def __init__(
        self,
        value: T,
        *,
        options: ComputedOptions | None = None,
        category: str | None = None,
        configure: Callable[[Any], object] | None = None,
    ) -> None:
        super().__init__(self._present, options=options, category=category, configure=configure)
        for name in _LIFETIMES:
            if getattr(self.options, name) == 0:
                raise DefinitionError(
                    f"{type(self).__name__} can't have {name}=0: it would renew its result for "
                    "ever. Use a longer time, or math.inf for never."
                )
        self._next: Result[T] = Result.ok(value)
        self._snapshot = Snapshot(self._settled())

    def use(self) -> T:
        """Return the value; the running computation then depends on the state.

        Raises:
            Exception: the state was set to an error.
            InvalidStateError: inside a scope in which nothing is computed.
        """
        computed = self._snapshot.computed
        if current.get() is not None:
            _ = computed.use(allow_inconsistent=True)
        return computed.value

    def set(self, value: T) -> None:
        """Set the value. Setting an equal one of the same type changes nothing.

        Handlers of the invalidation, and all that runs after, see the new value.
        """
        new = Result.ok(value)
        old = self._next
        if old.is_ok and _same(old.value, value):
            return
        self._set(new)

    def set_error(self, error: Exception) -> None:
        """Set an error, which `value` and `use()` raise. Setting the same object again changes
        nothing.
        """
        if self._next.error is not error:
            self._set(Result.err(error))

    def change(self, function: Callable[[T], T]) -> None:
        """Set the value that `function` makes of the present one; counts as a change even if that
        is the same.

        Raises:
            Exception: what `function` raises, and what the state holds if that is an error; the
                state is left as it was.
        """
        self._set(Result.ok(function(self._next.value)))

    @property
    def is_confirmed(self) -> bool:
        """Always: a variable has no better value to wait for."""
        return True

    def _set(self, result: Result[T]) -> None:
        self._next = result
        self._snapshot.computed.invalidate(cause=STATE_SET)

    def _settled(self) -> Computed[T]:
        computed = settle(self._producer, self._next.value_or_none, self._next.error)
        self._producer.expire(computed)
        return computed

    async def _present(self) -> T:
        return self._next.value

    def _after_invalidation(self) -> None:
        try:
            self._starting()
        finally:  # also if a handler ends the program
            self._publish(self._settled())


def _same(old: Any, new: Any) -> bool:
    if old is new:
        return True
    if type(old) is not type(new):
        return False
    try:
        return bool(old == new)
    except Exception:  # arrays, for example, compare item by item
        return False
