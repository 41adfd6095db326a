"""Two processes on one database, on each kind of database: what one does, the other sees."""

from __future__ import annotations

import asyncio
from pathlib import Path

from afresh.db.tables import EventState
from tests.hosts.bank import bank_at
from tests.hosts.hosts import PATIENCE, hosts_of

PERIODS = {"operation_log": {"check_period": 0.3}, "event_log": {"check_period": 0.3}}
"""MariaDB tells nobody of commits, so its hosts poll."""


async def test_two_hosts_see_rows_and_counts_of_each_other(
    any_database: str, tmp_path: Path
) -> None:
    async with bank_at(any_database), hosts_of(any_database, tmp_path) as hosts:
        pair = await hosts.pair(**PERIODS)
        for host in pair:
            assert [await host.read("balance", 0), await host.read("entries", 0)] == [1_000, 0]
        for number in range(1, 6):
            for place, (here, there) in enumerate((pair, pair[::-1])):
                count = 2 * number - 1 + place
                result = await here.call("Deposit", account=0, amount=1, token=f"d{count}")
                assert result == 1_000 + count
                for host in (here, there):
                    await host.follow(1_000 + count, "balance", 0)
                    await host.follow(count, "entries", 0)


async def test_two_hosts_share_events_and_each_takes_effect_once(
    any_database: str, tmp_path: Path
) -> None:
    async with bank_at(any_database) as bank, hosts_of(any_database, tmp_path) as hosts:
        a, b = await hosts.pair(**PERIODS)
        assert await b.read("balance", 0) == 1_000
        await asyncio.gather(
            *(a.call("Order", account=n % 2, token=f"o{n}", count=5) for n in range(6)),
            *(b.call("Announce", account=n % 2, token=f"a{n}") for n in range(6)),
        )
        async with asyncio.timeout(PATIENCE):
            while any(row.state != EventState.PROCESSED for row in await bank.events()):
                await asyncio.sleep(0.05)
        journal = await bank.journal()
        assert set(journal.values()) == {1}
        assert len(journal) == 6 + 6 * 5 + 6 + 6 * 2
        for host in (a, b):
            await host.follow([1_021, 1_021], "pair", 0, 1)
