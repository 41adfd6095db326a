"""What a reader of the operation log still has to see: indexes that are missing, and operations
that could not be applied.

Indexes are given before transactions commit, so a lower one may come late, or never where the
transaction was rolled back. Data only: who looks, and with which SQL, is left to the reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import chain

from afresh.operations.logged import LoggedOperation
from afresh.primitives.delays import RetryDelays

from .options import OperationLogOptions

__all__ = ["Backlog", "Failure", "Gap"]


class Gap:
    """An index that no row had when its neighbours were read."""

    __slots__ = ("added_at", "horizon", "index", "next_at")

    def __init__(self, index: int, now: float, next_at: float) -> None:
        self.index: int = index
        self.added_at: float = now
        self.next_at: float = next_at
        self.horizon: int | None = None
        """On PostgreSQL: all transactions that may fill it have a lower number."""


class Failure:
    """An operation that could not be applied."""

    __slots__ = ("error", "logged", "next_at", "tries")

    def __init__(self, logged: LoggedOperation) -> None:
        self.logged: LoggedOperation = logged
        self.tries: int = 0
        self.next_at: float = math.inf
        self.error: BaseException | None = None


class Backlog:
    """The gaps and failures of one log.

    Args:
        options: how often to look, and for how long.
        now: seconds of a monotonic clock.
    """

    def __init__(self, options: OperationLogOptions, now: Callable[[], float]) -> None:
        self.gaps: dict[int, Gap] = {}
        self.failures: dict[int, Failure] = {}
        self.dropped: int = 0
        """How many gaps were not kept track of, as there were too many."""
        self.expired: int = 0
        """How many gaps nothing ever filled."""
        self._options = options
        self._now = now
        self._young = RetryDelays.fixed(options.gap_check)
        self._old = RetryDelays.fixed(options.slow_retry)
        self._quick = RetryDelays.exponential(options.quick_retry, options.longest_quick_retry, 2)

    # -- gaps

    def add_gaps(self, first: int, end: int) -> int:
        """Note that the indexes from `first` up to but without `end` are missing.

        Of too many, the highest are kept: transactions that are still open took theirs lately.

        Returns:
            How many are not kept track of.
        """
        room = max(self._options.gap_limit - len(self.gaps) - len(self.failures), 0)
        dropped = max(end - first - room, 0)
        self.dropped += dropped
        now = self._now()
        for index in range(first + dropped, end):
            self.gaps[index] = Gap(index, now, now + self._young[1])
        return dropped

    def due_gaps(self, *, signalled: bool = False, up_to: int = -1) -> list[Gap]:
        """Return the gaps to be looked for now.

        Args:
            signalled: something was committed, perhaps by one that fills a young gap.
            up_to: gaps of indexes up to this one are due in any case.
        """
        now, youth = self._now(), self._options.gap_youth
        return [
            gap
            for gap in self.gaps.values()
            if gap.next_at <= now
            or gap.index <= up_to
            or (signalled and now - gap.added_at < youth)
        ]

    def still_missing(self, gap: Gap, oldest: int = 0, horizon: int | None = None) -> None:
        """Note that a gap was looked for in vain; after a long time it is given up.

        Args:
            gap: the gap.
            oldest: on PostgreSQL, the number of the oldest transaction that was open then.
            horizon: on PostgreSQL, a number that only later transactions get.
        """
        now = self._now()
        age = now - gap.added_at
        if age >= self._options.gap_retention:
            self.expired += 1
            del self.gaps[gap.index]
            return
        # A transaction has no number yet in the instant in which it takes its index, hence the
        # wait before the horizon is drawn.
        if horizon is not None and age >= self._young.minimum / 2:
            if gap.horizon is None:
                gap.horizon = horizon
            elif oldest >= gap.horizon:
                del self.gaps[gap.index]  # whoever took the index has rolled back
                return
        gap.next_at = now + (self._young if age < self._options.gap_youth else self._old)[1]

    # -- failures

    def failed(self, logged: LoggedOperation, error: BaseException) -> bool:
        """Note that an operation could not be applied.

        Returns:
            Whether it is to be tried again; if not, it is forgotten here.
        """
        failure = self.failures.get(logged.index)
        if failure is None:
            if len(self.gaps) + len(self.failures) >= self._options.gap_limit:
                return False
            failure = self.failures[logged.index] = Failure(logged)
        failure.tries += 1
        failure.error = error
        quick = self._options.quick_retries
        if failure.tries > quick + self._options.slow_retries:
            del self.failures[logged.index]
            return False
        pause = self._quick[failure.tries] if failure.tries <= quick else self._old[1]
        failure.next_at = self._now() + pause
        return True

    def take_due_failures(self) -> list[LoggedOperation]:
        """Return the operations to be tried again now; each waits for its outcome then."""
        now = self._now()
        due = [failure for failure in self.failures.values() if failure.next_at <= now]
        for failure in due:
            failure.next_at = math.inf
        return [failure.logged for failure in due]

    # -- both

    def next_due(self) -> float:
        """When something is to be done; infinity if there is nothing."""
        waiting: Iterable[Gap | Failure] = chain(self.gaps.values(), self.failures.values())
        return min((each.next_at for each in waiting), default=math.inf)

    def clear(self) -> None:
        """Forget everything."""
        self.gaps.clear()
        self.failures.clear()

    def __len__(self) -> int:
        return len(self.gaps) + len(self.failures)
