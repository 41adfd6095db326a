"""The user's actions that failed, as a list for the page to show.

Showing them, with words that the user understands, is left to the page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from afresh.primitives.handlers import Handlers

from .ui_actions import UIActionResult, UIActionTracker

__all__ = ["UIFailures"]

_logger = logging.getLogger("afresh.ui")


class UIFailures(Sequence[UIActionResult[Any]]):
    """The failed actions of one user, oldest first, to be shown and dismissed.

    ```python
    failures = UIFailures(tracker)
    failures.on_change(show_banners)
    ```

    A failure that repeats one that ended shortly before, by type and message of the error, is left
    out, as are cancellations.

    Args:
        tracker: whose failures to collect; none when failures are only added by hand.
        repeat_period: for how many seconds a failure stands for those that repeat it; 0 keeps
            them all.
        capacity: how many are kept; the oldest go first.

    Raises:
        ValueError: `repeat_period` is negative or not a number, or `capacity` is less than 1.
    """

    __slots__ = ("_capacity", "_changed", "_failures", "_repeat_period", "_unsubscribe")

    def __init__(
        self,
        tracker: UIActionTracker | None = None,
        *,
        repeat_period: float = 1.0,
        capacity: int = 100,
    ) -> None:
        if not repeat_period >= 0:
            raise ValueError(f"The repeat period is {repeat_period}; pass seconds, 0 or more.")
        if capacity < 1:
            raise ValueError(f"The capacity is {capacity}; pass 1 or more.")
        self._repeat_period = repeat_period
        self._capacity = capacity
        self._failures: list[UIActionResult[Any]] = []
        self._changed = Handlers[UIFailures](_logger)
        self._unsubscribe = None if tracker is None else tracker.on_result(self.add)

    def add(self, result: UIActionResult[Any]) -> bool:
        """Add the result of an action, if it is a failure and no repetition.

        Returns:
            True when it was added.
        """
        if result.is_ok or result.was_cancelled or self._is_repetition(result):
            return False
        self._failures.append(result)
        del self._failures[: -self._capacity]
        self._changed.call(self)
        return True

    def dismiss(self, failure: UIActionResult[Any]) -> None:
        """Take one off the list; nothing happens when it is no longer there."""
        if failure in self._failures:
            self._failures.remove(failure)
            self._changed.call(self)

    def clear(self) -> None:
        """Take all off the list."""
        if self._failures:
            self._failures.clear()
            self._changed.call(self)

    def on_change(self, handler: Callable[[UIFailures], object]) -> Callable[[], None]:
        """Call a function with this list after each change.

        Errors of the function are logged to "afresh.ui".

        Returns:
            A function that ends this.
        """
        return self._changed.add(handler)

    def close(self) -> None:
        """Stop collecting from the tracker; the list stays as it is."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    @overload
    def __getitem__(self, index: int) -> UIActionResult[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[UIActionResult[Any]]: ...
    def __getitem__(
        self, index: int | slice
    ) -> UIActionResult[Any] | Sequence[UIActionResult[Any]]:
        return self._failures[index]

    def __len__(self) -> int:
        return len(self._failures)

    def __iter__(self) -> Iterator[UIActionResult[Any]]:
        return iter(tuple(self._failures))  # a page may dismiss while it goes through them

    def __repr__(self) -> str:
        return f"<UIFailures {[failure.error for failure in self._failures]!r}>"

    def _is_repetition(self, result: UIActionResult[Any]) -> bool:
        if self._repeat_period == 0:
            return False
        return any(
            result.completed_at <= failure.completed_at + self._repeat_period
            and type(failure.error) is type(result.error)
            and str(failure.error) == str(result.error)
            for failure in self._failures
        )
