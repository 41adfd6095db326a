"""How often logs are read and trimmed, and how hard failures are fought."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["EventLogOptions", "OperationLogOptions", "TrimOptions"]


def _check(options: Any, *positive: str) -> None:
    for field in fields(options):
        number = getattr(options, field.name)
        if not 0 <= number < math.inf or (number == 0 and field.name in positive):
            least = "above 0" if field.name in positive else "0 or more"
            raise ValueError(
                f"{type(options).__name__}: {field.name} is {number!r}; pass a finite number, "
                f"{least}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationLogOptions:
    """How a host follows the log of operations. All times are in seconds.

    Args:
        check_period: the log is read at least this often, ±10 %, whether or not something is
            signalled.
        batch: how many operations are read at once, at first.
        largest_batch: how many are read at once when there are many.
        concurrency: how many operations are applied at once, where applying has to wait.
        look_back: a host that starts applies what was logged in this time before.
        apply_timeout: how long applying one operation may take.
        slow_after: the reader goes on without an operation whose application takes longer.
        quick_retries: how often an operation is tried again within seconds, with a pause from
            `quick_retry` to `longest_quick_retry`.
        quick_retry: the first of those pauses.
        longest_quick_retry: the longest of them.
        slow_retries: how often it is tried again after that, before it is given up.
        slow_retry: the pause between those, ±10 %.
        gap_check: how often an index that is missing is looked for, ±10 %, while it is young.
        gap_youth: how long it is young; it is looked for every `slow_retry` after that.
        gap_retention: how long it is looked for at all.
        gap_limit: how many missing or failing indexes are kept track of.
        warn_above: a warning is logged when an operation is applied later than this after its
            commit, at most once every ten seconds.
    """

    check_period: float = 5.0
    batch: int = 64
    largest_batch: int = 1024
    concurrency: int = 32
    look_back: float = 3.0
    apply_timeout: float = 30.0
    slow_after: float = 1.0
    quick_retries: int = 5
    quick_retry: float = 0.25
    longest_quick_retry: float = 1.0
    slow_retries: int = 10
    slow_retry: float = 5.0
    gap_check: float = 1.0
    gap_youth: float = 60.0
    gap_retention: float = 1800.0
    gap_limit: int = 16_384
    warn_above: float = 1.0

    def __post_init__(self) -> None:
        _check(
            self,
            "check_period",
            "batch",
            "largest_batch",
            "concurrency",
            "apply_timeout",
            "gap_check",
            "slow_retry",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLogOptions:
    """How a host takes its part in processing events. All times are in seconds.

    Args:
        check_period: events that are due are looked for at least this often, ±10 %.
        concurrency: how many events this host processes at once; at most half as many as there are
            connections for commands (of which SQLite has one, for which they queue).
        lease: how long a host has an event to itself. After this, others take over from a host that
            died. While an event is processed its lease is renewed when 60 % of it are over; a
            handler that works longer than that in one transaction above READ COMMITTED fails then,
            as the event has changed for it.
        timeout: how long processing one event may take.
        attempts: an event that was begun so often, without success, is dead.
        retry: the pause before the second attempt; it doubles with each further one.
        longest_retry: the longest pause, before ±10 %.
        unknown_retry: the pause after a host that can't handle an event, as it does not know the
            type or has no handler, has looked at it; this does not count as an attempt.
        closing: how long `aclose()` waits for events that are being processed, before it cancels
            and gives them back.
    """

    check_period: float = 5.0
    concurrency: int = 32
    lease: float = 30.0
    timeout: float = 300.0
    attempts: int = 10
    retry: float = 1.0
    longest_retry: float = 300.0
    unknown_retry: float = 30.0
    closing: float = 5.0

    def __post_init__(self) -> None:
        _check(self, "check_period", "concurrency", "lease", "timeout", "attempts")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimOptions:
    """How long rows of a log are kept. All times are in seconds.

    Args:
        age: rows older than this are deleted; None for 30 minutes of operations, and an hour of
            processed events. Hosts that were stalled for longer drop all they had cached.
        period: between two trims, ±25 %.
        batch: how many rows are deleted at once.
    """

    age: float | None = None
    period: float = 900.0
    batch: int = 4096

    def __post_init__(self) -> None:
        if self.age is not None and not 60 <= self.age < math.inf:
            raise ValueError(f"TrimOptions: age is {self.age!r}; pass 60 seconds or more.")
        if not (0 < self.period < math.inf and self.batch > 1):
            raise ValueError(
                f"TrimOptions: period is {self.period!r} and batch {self.batch!r}; pass seconds "
                "above 0, and 2 rows or more."
            )
