"""The board: what all processes have reported, as compute methods, so that pages of it are live."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import count

from afresh import compute_method

from .contracts import Board, Counts, Happening, Kind, Report, Sample

EVERY = 0.5
SECONDS = 60
KEPT = 200
_AWAY = 4.0
_LEVELS = {"pending": 0, "oldest": 0.0}
_NOTHING = Counts()
_ORDER = ("shop", "worker", "page", "notification", "analytics", "inventory", "backstage")


@dataclass(slots=True)
class _Process:
    service: str
    run: str
    counts: Counts = _NOTHING
    before: Counts = _NOTHING
    """Of its runs that have ended."""
    seen_at: float = field(default_factory=time.monotonic)

    @property
    def all(self) -> Counts:
        return sum_of([replace(self.before, pending=0, oldest=0.0), self.counts])


def sum_of(many: Iterable[Counts]) -> Counts:
    """The sum of counts; `oldest` is that of the oldest."""
    sums = asdict(Counts())
    for each in many:
        for name, value in asdict(each).items():
            sums[name] = max(sums[name], value) if name == "oldest" else sums[name] + value
    return Counts(**sums)


def difference(now: Counts, before: Counts) -> Counts:
    """What was added since; levels are as they are now."""
    was = asdict(before) | _LEVELS
    return Counts(**{name: value - was[name] for name, value in asdict(now).items()})


class LiveBoard(Board):
    """Gathers reports; what they change goes stale twice a second, not with each report."""

    def __init__(self) -> None:
        self._processes: dict[str, _Process] = {}
        self._names: dict[str, str] = {}
        self._orders: dict[str, int] = {}
        self._samples: deque[Sample] = deque(maxlen=SECONDS)
        self._feeds: dict[Kind, deque[tuple[datetime, int, Happening]]] = {}
        self._told = 0
        self._own = Counts()
        self._changed: set[str] = set()
        self._has_news = False

    # -- what is read

    @compute_method
    async def processes(self) -> tuple[str, ...]:
        def place(name: str) -> tuple[int, str]:
            kind = name.partition(" ")[0]
            return _ORDER.index(kind) if kind in _ORDER else len(_ORDER), name

        return tuple(sorted(self._processes, key=place))

    @compute_method
    async def counts(self, process: str) -> Counts:
        found = self._processes.get(process)
        return found.all if found is not None else _NOTHING

    @compute_method
    async def total(self) -> Counts:
        return self._total()

    @compute_method
    async def orders(self, service: str) -> int:
        return self._orders.get(service, 0)

    @compute_method
    async def rates(self) -> tuple[Sample, ...]:
        return tuple(self._samples)

    @compute_method
    async def feed(self, limit: int, kinds: tuple[Kind, ...] = ()) -> tuple[Happening, ...]:
        await self._news()
        feeds = [feed for kind, feed in self._feeds.items() if not kinds or kind in kinds]
        newest = heapq.nlargest(limit, (each for feed in feeds for each in feed))
        return tuple(happening for *_, happening in newest)

    @compute_method
    async def _news(self) -> int:
        """How much was told; every part of the feed goes stale with it."""
        return self._told

    # -- what is told

    async def report(self, report: Report) -> None:
        name = self._name(report)
        process = self._processes.get(name)
        if process is None:
            process = self._processes[name] = _Process(report.service, report.run)
            self._changed.add("")
        elif process.run != report.run:
            process.before, process.counts = process.all, Counts()
            process.run = report.run
        process.counts = report.counts
        process.seen_at = time.monotonic()
        self._changed.add(name)
        if report.orders is not None and self._orders.get(report.service) != report.orders:
            self._orders[report.service] = report.orders
            self.orders.invalidate(report.service)
        self._add(replace(each, process=name) for each in report.happenings)

    def tell(self, kind: Kind, text: str, *, process: str = "backstage") -> None:
        """Note something that the backstage itself has seen or done."""
        self._add([Happening(datetime.now(UTC), process, kind, text)])
        if kind == "publish":
            self._own = replace(self._own, published=self._own.published + 1)

    def _add(self, happenings: Iterable[Happening]) -> None:
        for each in happenings:
            feed = self._feeds.setdefault(each.kind, deque(maxlen=KEPT))
            self._told += 1
            feed.append((each.at, self._told, each))
            self._has_news = True

    def _name(self, report: Report) -> str:
        """Workers that are alike get numbers; one that takes another's place gets its number."""
        if report.process != "worker":
            return report.process
        name = self._names.get(report.run)
        if name is None:
            long_ago = time.monotonic() - _AWAY
            name = next(
                name
                for name in (f"worker {number}" for number in count(1))
                if name not in self._processes or self._processes[name].seen_at < long_ago
            )
            self._names[report.run] = name
        return name

    def _total(self) -> Counts:
        # Workers of one service all see the same outbox.
        levels: dict[str, Counts] = {}
        for process in self._processes.values():
            counts = process.counts
            other = levels.get(process.service, counts)
            levels[process.service] = max(counts, other, key=lambda each: each.pending)
        sums = sum_of([self._own, *(process.all for process in self._processes.values())])
        of_services = sum_of(levels.values())
        return replace(sums, pending=of_services.pending, oldest=of_services.oldest)

    # -- life

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Let what was reported show, and take a sample of it every second."""
        task = asyncio.create_task(self._watch(self._total()))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self, before: Counts) -> None:
        for round_number in count(1):
            await asyncio.sleep(EVERY)
            changed, self._changed = self._changed, set()
            if changed:
                if "" in changed:
                    self.processes.invalidate()
                for name in changed:
                    self.counts.invalidate(name)
                self.total.invalidate()
            if self._has_news:
                self._has_news = False
                self._news.invalidate()
            if round_number % round(1 / EVERY) == 0:
                now = self._total()
                counts, before = difference(now, before), now
                if counts != _NOTHING or any(each.counts != _NOTHING for each in self._samples):
                    self._samples.append(Sample(datetime.now(UTC), counts))
                    self.rates.invalidate()
