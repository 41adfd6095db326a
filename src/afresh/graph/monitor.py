"""`Monitor`: how well results are reused, and what makes them stale, as a report now and then."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from afresh.errors import InvalidStateError
from afresh.primitives.clock import current_clock
from afresh.primitives.tasks import start_background

from . import causes
from .observe import GraphEvent, GraphEventKind, observe

__all__ = ["Monitor", "MonitorReport"]

_log = logging.getLogger("afresh.monitor")

INDENT = "  "


@dataclass(slots=True)
class MonitorReport:
    """What happened in the graph in a stretch of time, by category ("Orders.for_user").

    Hits are estimates where they were sampled.
    """

    seconds: float = 0.0
    """How long the stretch was."""
    hits: Counter[str] = field(default_factory=Counter)
    """Calls that found their result."""
    computed: Counter[str] = field(default_factory=Counter)
    """Results that were computed."""
    failed: Counter[str] = field(default_factory=Counter)
    """Those of them that are errors."""
    invalidated: Counter[str] = field(default_factory=Counter)
    """Results that went stale."""
    durations: dict[str, float] = field(default_factory=dict)
    """Seconds spent in bodies, waiting included."""
    paths: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Ways of invalidations: where one began, the category it hit there if that is known, and the
    category that went stale through it."""

    def hit_ratio(self, category: str) -> float:
        """The share of calls that found their result, from 0 to 1."""
        hits = self.hits[category]
        reads = hits + self.computed[category]
        return hits / reads if reads else 0.0

    def __str__(self) -> str:
        """The report as text; sections with nothing in them are left out."""
        lines = [f"The graph in {self.seconds:.1f} s:"]
        reads = self.hits + self.computed
        if reads:
            hits, total = sum(self.hits.values()), sum(reads.values())
            lines.append(f"Reads: {total}, {hits / total:.1%} found")
            lines += [
                f"{INDENT}{category}: {count}, {self.hit_ratio(category):.1%} found"
                for category, count in _most(reads)
            ]
        changes = self.computed + self.invalidated
        if changes:
            computed, stale = sum(self.computed.values()), sum(self.invalidated.values())
            lines.append(f"Updates: +{computed} -{stale}")
            lines += [
                f"{INDENT}{category}: +{self.computed[category]} -{self.invalidated[category]}"
                + self._details(category)
                for category, _ in _most(changes)
            ]
        if self.paths:
            lines.append("Invalidations came from:")
            lines += self._tree()
        return "\n".join(lines)

    def _details(self, category: str) -> str:
        details = ""
        if category in self.durations:
            milliseconds = 1000 * self.durations[category] / self.computed[category]
            details += f", {milliseconds:.2f} ms each"
        if self.failed[category]:
            details += f", {self.failed[category]} failed"
        return details

    def _tree(self) -> list[str]:
        counts: Counter[tuple[str, ...]] = Counter()
        for path, count in self.paths.items():
            for depth in range(1, len(path) + 1):
                counts[path[:depth]] += count

        def branch(stem: tuple[str, ...]) -> list[str]:
            lines: list[str] = []
            twigs = Counter(
                {path: n for path, n in counts.items() if path[:-1] == stem and path != stem}
            )
            for path, count in _most(twigs):
                lines.append(f"{INDENT * len(path)}{path[-1]}: {count}")
                lines += branch(path)
            return lines

        return branch(())


def _most(counter: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


class Monitor:
    """Counts what happens in the graph, and logs a report now and then.

    Args:
        period: seconds that each report covers.
        pause: seconds between two of them in which nothing is counted, to cost less.
        sample_hits: count one hit in so many.
        accepts: called with the category of an event; False leaves it out.
        log: called with each report; logs its text to "afresh.monitor" by default.

    Example:
        ```python
        async with Monitor(period=60):
            ...
        ```
    """

    def __init__(
        self,
        period: float = 60.0,
        *,
        pause: float = 0.0,
        sample_hits: int = 8,
        accepts: Callable[[str], bool] | None = None,
        log: Callable[[MonitorReport], object] | None = None,
    ) -> None:
        self.period = period
        self.pause = pause
        self._sample_hits = sample_hits
        self._accepts = accepts
        self._report_to = log if log is not None else lambda report: _log.info("%s", report)
        self._stop: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._report = MonitorReport()
        self._since = 0.0

    def attach(self) -> None:
        """Start counting, from zero, without the regular reports."""
        if self._stop is None:
            self.take_report()
            self._stop = observe(
                self._count,
                GraphEventKind.COMPUTED | GraphEventKind.HIT | GraphEventKind.INVALIDATED,
                sample_hits=self._sample_hits,
            )

    def detach(self) -> None:
        """Stop counting."""
        if self._stop is not None:
            self._stop()
            self._stop = None

    def take_report(self) -> MonitorReport:
        """Return what was counted since the last report, and count from zero."""
        now = current_clock().now()
        report, self._report = self._report, MonitorReport()
        report.seconds, self._since = now - self._since, now
        return report

    def start(self) -> None:
        """Start counting and reporting in the background; needs a running event loop."""
        if self._task is not None:
            raise InvalidStateError("The monitor is running already; stop it first.")
        self._task = start_background(self._run, name="afresh monitor")

    async def stop(self) -> None:
        """Stop counting and reporting."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self.detach()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _run(self) -> None:
        while True:
            self.attach()
            await current_clock().sleep(self.period)
            self._report_to(self.take_report())
            if self.pause > 0:
                self.detach()
                await current_clock().sleep(self.pause)

    def _count(self, event: GraphEvent) -> None:
        computed = event.computed
        category = computed.category
        if self._accepts is not None and not self._accepts(category):
            return
        report = self._report
        match event.kind:
            case GraphEventKind.HIT:
                report.hits[category] += event.weight
            case GraphEventKind.COMPUTED:
                report.computed[category] += 1
                if event.duration is not None:
                    total = report.durations.get(category, 0.0)
                    report.durations[category] = total + event.duration
                if computed.error is not None:
                    report.failed[category] += 1
            case _:
                report.invalidated[category] += 1
                if causes.tracking() is not causes.Tracking.NONE and event.cause is not None:
                    self._count_path(list(event.cause), category)

    def _count_path(self, chain: list[Any], category: str) -> None:
        origin = chain[-1]
        if origin == causes.INITIAL:
            return
        path = [str(origin)]
        if len(chain) > 1:  # with the whole chain recorded, its last node is where it began
            first = chain[-2].category
            if first != category:
                path.append(first)
        self._report.paths[(*path, category)] += 1

    def __repr__(self) -> str:
        state = "counting" if self._stop is not None else "stopped"
        return f"<Monitor {state}, a report every {self.period:g} s>"
