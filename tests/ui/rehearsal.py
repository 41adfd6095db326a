"""A backstage without processes: what the flow page reads is set by hand, commands are noted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from afresh import App, command_handler, compute_method
from examples.shop.backstage.contracts import (
    BROKER,
    Backstage,
    Board,
    Counts,
    DeadLetterView,
    Drop,
    Happening,
    Kill,
    Kind,
    LetFail,
    Mischief,
    Processes,
    Report,
    Requeue,
    Sample,
    SendDuplicate,
    SendPoison,
    SendUnknown,
    Start,
    State,
    Stop,
)
from examples.shop.departments.contracts import DEPARTMENTS
from examples.shop.places import KnownPlaces

STARTED_AT = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class RehearsedBoard(Board):
    """Shows what `count` and `happen` were told."""

    def __init__(self) -> None:
        self.by_process = {each: Counts() for each in ("worker 1", "worker 2", *DEPARTMENTS)}
        self.orders_of = dict.fromkeys(("shop", *DEPARTMENTS), 0)
        self.samples: list[Sample] = []
        self.happenings: list[Happening] = []

    @compute_method
    async def processes(self) -> tuple[str, ...]:
        return tuple(self.by_process)

    @compute_method
    async def counts(self, process: str) -> Counts:
        return self.by_process[process]

    @compute_method
    async def total(self) -> Counts:
        every = [await self.counts(each) for each in await self.processes()]
        return Counts(*(sum(getattr(each, name) for each in every) for name in Counts.__slots__))

    @compute_method
    async def orders(self, service: str) -> int:
        return self.orders_of[service]

    @compute_method
    async def rates(self) -> tuple[Sample, ...]:
        return tuple(self.samples[-60:])

    @compute_method
    async def feed(self, limit: int, kinds: tuple[Kind, ...] = ()) -> tuple[Happening, ...]:
        newest = reversed(await self.happened())
        return tuple([each for each in newest if not kinds or each.kind in kinds][:limit])

    @compute_method
    async def happened(self) -> tuple[Happening, ...]:
        return tuple(self.happenings)

    async def report(self, report: Report) -> None:
        raise NotImplementedError("nobody reports to a rehearsal")

    def count(self, process: str, *, orders: int = 0, **more: Any) -> None:
        """Let a process have counted so much more."""
        counts = self.by_process[process]
        added = {name: getattr(counts, name) + value for name, value in more.items()}
        self.by_process[process] = replace(counts, **added)
        service = process if process in DEPARTMENTS else "shop"
        self.orders_of[service] += orders
        self.counts.invalidate(process)
        self.orders.invalidate(service)

    def tick(self, **counts: Any) -> None:
        """Let a second pass in which so much happened in all."""
        at = STARTED_AT + timedelta(seconds=len(self.samples))
        self.samples.append(Sample(at, Counts(**counts)))
        self.rates.invalidate()

    def happen(
        self, kind: Kind, text: str, process: str = "worker 1", correlation: str = ""
    ) -> None:
        at = STARTED_AT + timedelta(seconds=len(self.samples))
        self.happenings.append(Happening(at, process, kind, text, correlation))
        self.happened.invalidate()


class RehearsedProcesses(Processes):
    """Does at once what it is told."""

    def __init__(self) -> None:
        self.states: dict[str, State] = dict.fromkeys((BROKER, *DEPARTMENTS), "running")

    @compute_method
    async def names(self) -> tuple[str, ...]:
        return tuple(self.states)

    @compute_method
    async def state(self, name: str) -> State:
        return self.states[name]

    @compute_method
    async def pid(self, name: str) -> int | None:
        is_there = await self.state(name) in ("running", "stopping")
        return 4000 + list(self.states).index(name) if is_there else None

    @compute_method
    async def url(self, name: str) -> str:
        return ""

    @compute_method
    async def title(self, name: str) -> str:
        return "NATS" if name == BROKER else name.capitalize()

    @command_handler
    async def stop(self, command: Stop) -> None:
        self.set(command.name, "stopped")

    @command_handler
    async def kill(self, command: Kill) -> None:
        self.set(command.name, "failed")

    @command_handler
    async def start(self, command: Start) -> None:
        self.set(command.name, "running")

    def set(self, name: str, state: State) -> None:
        self.states[name] = state
        self.state.invalidate(name)


class RehearsedMischief(Mischief):
    """Notes what was sent; dead letters are put in by hand."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.failing: set[str] = set()
        self.letters: dict[str, list[DeadLetterView]] = {each: [] for each in DEPARTMENTS}

    @compute_method
    async def is_failing(self, department: str) -> bool:
        return department in self.failing

    @compute_method
    async def dead(self, department: str) -> tuple[DeadLetterView, ...]:
        return tuple(self.letters[department])

    @command_handler
    async def send_poison(self, command: SendPoison) -> None:
        self.sent.append("poison")

    @command_handler
    async def send_duplicate(self, command: SendDuplicate) -> None:
        self.sent.append("duplicate")

    @command_handler
    async def send_unknown(self, command: SendUnknown) -> None:
        self.sent.append("unknown")

    @command_handler
    async def let_fail(self, command: LetFail) -> None:
        self.set(command.department, is_failing=command.is_failing)

    @command_handler
    async def requeue(self, command: Requeue) -> int:
        return self._take(command.department, command.ids)

    @command_handler
    async def drop(self, command: Drop) -> int:
        return self._take(command.department, command.ids)

    def set(self, department: str, *, is_failing: bool) -> None:
        (self.failing.add if is_failing else self.failing.discard)(department)
        self.is_failing.invalidate(department)

    def die(self, department: str, letter: DeadLetterView) -> None:
        self.letters[department].append(letter)
        self.dead.invalidate(department)

    def _take(self, department: str, ids: tuple[str, ...] | None) -> int:
        before = self.letters[department]
        after = [each for each in before if ids is not None and each.id not in ids]
        self.letters[department] = after
        self.dead.invalidate(department)
        return len(before) - len(after)


class Rehearsal:
    """A backstage to set by hand."""

    def __init__(self) -> None:
        app = App()
        self.board = app.add(RehearsedBoard())
        self.processes = app.add(RehearsedProcesses())
        self.mischief = app.add(RehearsedMischief())
        self.backstage = Backstage(self.board, self.processes, self.mischief, KnownPlaces({}))
