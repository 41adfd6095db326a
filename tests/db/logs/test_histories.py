"""Whatever the order in which transactions take indexes, commit and roll back, and whenever the log
is read: in the end every operation of other hosts that was committed has been applied once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from afresh.db.logs import OperationLogOptions
from afresh.db.shards import open_shard
from afresh.operations.logged import LoggedOperation
from afresh.primitives.clock import use_clock
from afresh.testing import FakeClock
from tests.db.logs.world import Host, Log, idle

OPTIONS = OperationLogOptions(batch=2, largest_batch=4, concurrency=2)
OWN = "B"


@dataclass(frozen=True)
class Begin:
    """A transaction takes the next index."""

    is_own: bool
    failures: int
    """How often applying it fails at first."""


@dataclass(frozen=True)
class End:
    """One of the open transactions, counted from the oldest, ends."""

    which: int
    commits: bool
    signals: bool


@dataclass(frozen=True)
class Pass:
    """Time passes."""

    seconds: float


@dataclass(frozen=True)
class Wait:
    """Somebody waits for one of the operations that were committed."""

    which: int


steps = st.lists(
    st.one_of(
        st.builds(Begin, st.booleans(), st.sampled_from([0, 0, 0, 1, 3])),
        st.builds(End, st.integers(0, 3), st.booleans(), st.booleans()),
        st.builds(Pass, st.sampled_from([0.0, 0.3, 1.1, 7.0, 50.0])),
        st.builds(Wait, st.integers(0, 5)),
    ),
    min_size=1,
    max_size=25,
)


class History:
    """Runs steps, and knows what must have come of them."""

    def __init__(self, log: Log, clock: FakeClock) -> None:
        self.log = log
        self.clock = clock
        self.host = Host(log, OWN, OPTIONS)
        self.host.failing = self.fail
        self.next_index = 1
        self.open: list[tuple[int, Begin]] = []
        self.committed: dict[int, Begin] = {}
        self.failures: dict[int, int] = {}

    def fail(self, logged: LoggedOperation) -> BaseException | None:
        self.failures[logged.index] -= 1
        return ValueError("not yet") if self.failures[logged.index] >= 0 else None

    @property
    def foreign(self) -> list[int]:
        return [index for index, begin in self.committed.items() if not begin.is_own]

    async def run(self, steps: list[Begin | End | Pass | Wait]) -> None:
        await self.host.reader.start()
        try:
            for step in steps:
                await self.do(step)
            for which, (index, _) in enumerate(list(self.open)):
                await self.do(End(0, commits=(which + index) % 2 == 0, signals=False))
            await self.come_to_rest()
            self.check()
        finally:
            await self.host.reader.aclose()

    async def do(self, step: Begin | End | Pass | Wait) -> None:
        match step:
            case Begin():
                self.open.append((self.next_index, step))
                self.failures[self.next_index] = step.failures
                self.next_index += 1
            case End(which, commits, signals) if self.open:
                index, begin = self.open.pop(which % len(self.open))
                if commits:
                    await self.log.add(OWN if begin.is_own else "A", index=index)
                    self.committed[index] = begin
                if signals:
                    self.log.changed()
            case Pass(seconds):
                await self.clock.advance(seconds)
                await idle(self.host.reader)
            case Wait(which) if self.committed:
                await self.wait(sorted(self.committed)[which % len(self.committed)])

    async def wait(self, index: int) -> None:
        """What was committed up to an index has been applied when waiting for it succeeds, and
        waiting succeeds unless something fails.
        """
        wanted = {each for each in self.foreign if each <= index}
        waiting = asyncio.ensure_future(self.host.reader.wait_for(index, 1.0))
        await asyncio.sleep(0)
        await idle(self.host.reader)
        await self.clock.settle()
        if not waiting.done():
            assert self.host.health["failing"]
            await self.clock.advance(1.0)
            await idle(self.host.reader)
        if await waiting:
            assert wanted <= set(self.host.applied)

    async def come_to_rest(self) -> None:
        for _ in range(6):
            await self.clock.advance(6)
            await idle(self.host.reader)

    def check(self) -> None:
        assert sorted(self.host.applied) == sorted(self.foreign)
        failures = sum(self.committed[index].failures for index in self.foreign)
        assert len(self.host.calls) == len(self.foreign) + failures
        assert (self.host.losses, self.host.abandoned) == ([], [])
        health = self.host.health
        assert health["failing"] == health["applying"] == 0
        highest = max(self.committed, default=0)
        assert health["cursor"] == highest + 1
        assert health["missing"] == highest - len(self.committed)


def test_every_history_of_transactions_and_reads_applies_each_operation_once(tmp_path: Path):
    with asyncio.Runner() as runner:
        log = Log(open_shard("", f"sqlite+aiosqlite:///{tmp_path / 'log.sqlite'}"))
        runner.run(log.create())

        async def run(history: list[Begin | End | Pass | Wait]) -> None:
            async with log.shard.write.begin() as connection:
                await connection.execute(delete(log.tables.operations))
            with use_clock(FakeClock()) as clock:
                await History(log, clock).run(history)

        @settings(phases=set(Phase) - {Phase.explain}, suppress_health_check=[HealthCheck.too_slow])
        @given(steps)
        def each_history(history: list[Begin | End | Pass | Wait]) -> None:
            runner.run(run(history))

        try:
            each_history()
        finally:
            runner.run(log.shard.aclose())
