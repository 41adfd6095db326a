"""How long to wait before the next attempt.

Numbers only: who waits, and on which clock, is left to the caller. (Libraries such as tenacity
decorate functions with a whole retry loop; what states, reconnects and operations need is the bare
sequence.)
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["RetryDelays"]


@dataclass(frozen=True, slots=True)
class RetryDelays:
    """The delays before the first retry, the second, and so on without end.

    Ask with the number of the retry: `delays[1]` is the first delay. Zero and negative numbers
    give no delay: nothing has failed yet. Immutable.

    ```python
    delays = RetryDelays.exponential(1, 60)
    await clock.sleep(delays[retry_count])
    ```

    Args:
        minimum: the delay before the first retry, in seconds.
        maximum: delays grow up to this many seconds, before the spread is added.
        multiplier: what each delay is to the one before it; 1 or less keeps them all at `minimum`.
        spread: how far a delay strays at random, as a fraction of it: 0.1 is ±10 %. Keeps those
            who failed together from coming back together. A delay never becomes negative.
        random_source: returns a random number from 0 up to, but not including, 1.

    Raises:
        ValueError: a number is negative or not finite, or `minimum` is greater than `maximum`.
    """

    minimum: float
    maximum: float
    multiplier: float = math.sqrt(2)
    spread: float = 0.1
    random_source: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("minimum", "maximum", "multiplier", "spread"):
            number = getattr(self, name)
            if not 0 <= number < math.inf:
                raise ValueError(
                    f"RetryDelays: {name} is {number}; pass a finite number, 0 or more."
                )
        if self.minimum > self.maximum:
            raise ValueError(
                f"RetryDelays: the first delay, {self.minimum} s, is longer than the maximum, "
                f"{self.maximum} s; swap or change them."
            )

    @classmethod
    def exponential(
        cls,
        first: float,
        maximum: float,
        multiplier: float = math.sqrt(2),
        spread: float = 0.1,
        *,
        random_source: Callable[[], float] = random.random,
    ) -> RetryDelays:
        """Delays from `first` to `maximum` seconds, each `multiplier` times the one before."""
        return cls(first, maximum, multiplier, spread, random_source)

    @classmethod
    def fixed(
        cls,
        seconds: float,
        *,
        spread: float = 0.1,
        random_source: Callable[[], float] = random.random,
    ) -> RetryDelays:
        """Delays that are all the same, apart from their spread."""
        return cls(seconds, seconds, 1.0, spread, random_source)

    def __getitem__(self, retry_count: int) -> float:
        """The delay, in seconds, before the retry of this number."""
        if retry_count <= 0 or self.minimum == 0:
            return 0.0
        delay = min(self.maximum, self.minimum * self._growth(retry_count - 1))
        if self.spread:
            delay += delay * self.spread * (2 * self.random_source() - 1)
        return max(delay, 0.0)

    # Without it, `for` would fall back on the method above, from 0 on.
    __iter__ = None

    def _growth(self, steps: int) -> float:
        if self.multiplier <= 1:
            return 1.0
        try:
            return self.multiplier**steps
        except OverflowError:
            return math.inf
