"""Four processes, random commands and random deaths: nothing is lost, doubled, or left stale.

A short form runs always; AFRESH_SOAK=1 makes it 10,000 commands. AFRESH_SOAK_SEED=… repeats the
commands of a run, though not its timing.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from afresh.db.tables import EventState
from tests.hosts.bank import Bank, bank_at
from tests.hosts.hosts import Host, HostGone, Hosts, hosts_of
from tests.hosts.ledger import Announce, Announced, Order, Settle, replayed

IS_LONG = bool(os.environ.get("AFRESH_SOAK"))
COMMANDS = 10_000 if IS_LONG else 280
HOSTS = 4
ACCOUNTS = 12
BATCH = 40
DEATHS = 8 if IS_LONG else 4
"""Of so many batches, one kills its host, and another one is likely to."""
PATIENCE = 60.0
POINTS = ("before store", "before commit", "in commit", "after commit", "before event")

SETUP = {
    "operation_log": {"check_period": 0.5},
    "event_log": {"lease": 1.5, "check_period": 0.5, "retry": 0.2},
}


class Soak:
    """The hosts, and what they have said they did."""

    def __init__(self, hosts: Hosts, chance: random.Random, *, is_tracked: bool) -> None:
        self.hosts = hosts
        self.chance = chance
        self.setup = SETUP | {"is_tracked": is_tracked}
        self.left = COMMANDS
        self.done: set[str] = set()
        self.deaths = 0

    async def run(self) -> None:
        """Keep that many hosts busy until the commands are used up; they are alive at the end."""
        self.alive = [
            each for _ in range(HOSTS // 2) for each in await self.hosts.pair(**self.setup)
        ]
        async with asyncio.TaskGroup() as group:
            for number in range(HOSTS):
                group.create_task(self.keep_busy(number))
        # Once more without deaths, so that all end with results that others made stale.
        for number in range(HOSTS):
            try:
                await self.alive[number].ask("forget_faults")
            except HostGone:
                await self.replace(number)
            await self.alive[number].ask("read_all", ACCOUNTS)
        async with asyncio.TaskGroup() as group:
            for host in self.alive:
                group.create_task(self.load(host))

    async def replace(self, number: int) -> None:
        await self.alive[number].gone()
        self.alive[number] = await self.hosts.start(**self.setup)
        self.deaths += 1

    async def load(self, host: Host) -> None:
        report = await host.ask("load", self.chance.randrange(2**31), BATCH, ACCOUNTS, 4)
        assert report["failed"] == [], f"See {host.log}."
        self.done.update(report["done"])

    async def keep_busy(self, number: int) -> None:
        while self.left > 0:
            self.left -= BATCH
            host, chance = self.alive[number], self.chance
            load = asyncio.create_task(self.load(host))
            # Each lives for a few batches; some die at once, some where it hurts most.
            match chance.randrange(DEATHS) if self.deaths else 0:
                case 0:
                    await asyncio.sleep(chance.uniform(0, 0.2))
                    await host.kill()
                case 1:
                    passes = chance.randrange(20)
                    await host.fault(chance.choice(POINTS), "kill", passes=passes)
            try:
                await load
            except HostGone:
                await self.replace(number)


@pytest.mark.soak
@pytest.mark.parametrize("is_tracked", [False, True], ids=["told", "tracked"])
async def test_random_commands_and_deaths_lose_double_and_leave_nothing_stale(
    postgres_database: str, tmp_path: Path, is_tracked: bool
) -> None:
    seed = int(os.environ.get("AFRESH_SOAK_SEED") or random.randrange(2**31))
    print(f"AFRESH_SOAK_SEED={seed}")
    async with bank_at(postgres_database, accounts=ACCOUNTS) as bank:
        async with hosts_of(postgres_database, tmp_path) as hosts:
            soak = Soak(hosts, random.Random(seed), is_tracked=is_tracked)
            await soak.run()
            await nothing_left_to_handle(bank)
            last = (await bank.operations())[-1].index
            for host in soak.alive:
                await caught_up(host, last)
                audited = await host.ask("audit")
                assert audited["stale"] == []
                assert audited["checked"] > ACCOUNTS
        assert soak.deaths > 0
        assert len(soak.done) > COMMANDS / 3
        await check_history(bank, soak)


async def nothing_left_to_handle(bank: Bank) -> None:
    """Wait until every event is handled."""
    async with asyncio.timeout(PATIENCE):
        while any(row.state == EventState.NEW for row in await bank.events()):
            await asyncio.sleep(0.1)
    assert {row.state for row in await bank.events()} == {EventState.PROCESSED}


async def caught_up(host: Host, last: int) -> None:
    """Wait until a host has read the log to its end, and cached all that it can meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while True:
            await host.ask("read_all", ACCOUNTS)
            log = (await host.ask("health"))["database"]["shards"][""]["operations"]
            if log["cursor"] > last and not (log["applying"] or log["failing"] or log["missing"]):
                assert log["abandoned"] == log["lost"] == 0
                return
            await asyncio.sleep(0.1)


async def check_history(bank: Bank, soak: Soak) -> None:
    """See whether accounts, journal, logs and answers tell the same story."""
    commands = await bank.commands()
    journal = await bank.journal()
    assert max(journal.values()) == 1, "A command took effect twice."
    assert await bank.balances() == replayed(dict.fromkeys(range(ACCOUNTS), 1_000), commands)
    logged = Counter((each.token, type(each).__name__) for each in commands)
    doubled = {name for (name, kind), count in logged.items() if count > 1 + (kind == "Announced")}
    assert not doubled
    tokens = {token for token, _ in journal}
    assert tokens == {token for token, _ in logged}
    assert soak.done <= tokens
    wanted: Counter[tuple[str, str]] = Counter()
    for each in commands:
        match each:
            case Order(_, token, count):
                wanted.update((f"{token}/{number}", "Settle") for number in range(count))
            case Announce(_, token):
                wanted.update([(token, "heard"), (token, "heard too")])
    handled = {key: n for key, n in journal.items() if key[1] in {"Settle", "heard", "heard too"}}
    assert handled == wanted
    assert sum(isinstance(each, Settle | Announced) for each in commands) == len(handled)
