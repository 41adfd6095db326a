"""What becomes of operations when processes, connections and clocks fail: real ones, PostgreSQL's.

Each test is a line of the failure matrix; `tests.hosts` has the processes and what befalls them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, text, update

from afresh.db.tables import EventState
from tests.hosts.bank import Bank, bank_at
from tests.hosts.hosts import PATIENCE, Host, HostError, HostGone, Hosts, hosts_of
from tests.hosts.ledger import AccountRow, log_tables, replayed
from tests.hosts.proxy import Plan, proxy_to
from tests.servers.fixtures import fresh_database, kill_connections
from tests.servers.postgresql import PostgreSQL

NEVER_POLLED = {"check_period": 600.0}
"""Hosts see what is notified, or not at all."""

EAGER = {"lease": 1.0, "check_period": 0.5, "retry": 0.1}


@pytest.fixture
async def bank(postgres_database: str) -> AsyncIterator[Bank]:
    async with bank_at(postgres_database) as bank:
        yield bank


@pytest.fixture
async def hosts(bank: Bank, tmp_path: Path) -> AsyncIterator[Hosts]:
    async with hosts_of(bank.url, tmp_path) as hosts:
        yield hosts


# -- a host dies


@pytest.mark.parametrize("point", ["before store", "before commit"])
async def test_a_host_that_dies_before_the_commit_leaves_nothing(
    hosts: Hosts, bank: Bank, point: str
) -> None:
    a, b = await hosts.pair()
    await a.fault(point, "kill")
    call = a.ask("call", "Order", {"account": 0, "token": "a"})
    await a.gone()
    with pytest.raises(HostGone):
        await call
    assert await b.call("Deposit", account=0, amount=5, token="b") == 1_005
    assert await bank.tokens() == {"b": 1}
    assert [each.token for each in await bank.commands()] == ["b"]
    assert await bank.events() == []


@pytest.mark.parametrize("point", ["in commit", "after commit"])
async def test_what_a_host_committed_before_it_died_is_seen_everywhere(
    hosts: Hosts, bank: Bank, point: str
) -> None:
    a, b = await hosts.pair(operation_log={"check_period": 1})
    assert await b.read("balance", 0) == 1_000
    assert await b.read("total") == 4_000
    await a.fault(point, "kill")
    call = a.ask("call", "Deposit", {"account": 0, "amount": 5, "token": "a"})
    await a.gone()
    with pytest.raises(HostGone):
        await call
    await b.follow(1_005, "balance", 0)
    await b.follow(4_005, "total")
    assert await bank.tokens() == {"a": 1}


# -- a host dies with events


@pytest.mark.parametrize("point", ["in commit", "after commit"])
async def test_events_of_a_host_that_died_are_handled_by_others(
    hosts: Hosts, bank: Bank, point: str
) -> None:
    a, b = await hosts.pair(event_log=EAGER, operation_log={"check_period": 0.5})
    assert await b.read("balance", 0) == 1_000
    await a.fault(point, "kill")
    a.ask("call", "Order", {"account": 0, "token": "a", "count": 2})
    await a.gone()
    await b.follow(1_002, "balance", 0)
    assert await bank.tokens() == {"a": 1, "a/0": 1, "a/1": 1}


@pytest.mark.parametrize("point", ["before event", "before commit", "after commit"])
async def test_an_event_takes_effect_once_wherever_its_host_dies(
    hosts: Hosts, bank: Bank, point: str
) -> None:
    a = await hosts.start(event_log=EAGER)
    await a.fault(point, "kill", only="Settle")
    a.ask("call", "Order", {"account": 0, "token": "a"})
    await a.gone()
    b = await hosts.start(event_log=EAGER)
    await b.follow(1_001, "balance", 0)
    await all_events_handled(bank)
    assert await bank.tokens() == {"a": 1, "a/0": 1}
    assert (await b.ask("entered")).get("a/0", 0) == (point != "after commit")


@pytest.mark.parametrize("point", ["before commit", "after commit"])
async def test_handlers_of_one_event_take_effect_once_each_wherever_their_host_dies(
    hosts: Hosts, bank: Bank, point: str
) -> None:
    a = await hosts.start(event_log=EAGER)
    await a.fault(point, "kill", only="Announced")
    a.ask("call", "Announce", {"account": 0, "token": "a"})
    await a.gone()
    b = await hosts.start(event_log=EAGER)
    await b.follow(1_002, "balance", 0)
    await all_events_handled(bank)
    assert await bank.journal() == {("a", "Announce"): 1, ("a", "heard"): 1, ("a", "heard too"): 1}


@pytest.mark.parametrize("point", ["before event", "before commit"])
async def test_an_event_whose_host_stands_still_is_handled_by_another_and_not_again(
    hosts: Hosts, bank: Bank, point: str
) -> None:
    a = await hosts.start(event_log=EAGER)
    await a.fault(point, "wait", only="Settle", seconds=0.1)
    await a.call("Order", account=0, token="a")
    await a.reached(point)
    a.pause()
    if point == "before commit":
        # Its transaction has the row of the account, which the other host has to wait for.
        assert await kill_idle_transactions(bank) == 1
    b = await hosts.start(event_log=EAGER)
    await b.follow(1_001, "balance", 0)
    a.resume()
    async with asyncio.timeout(PATIENCE):
        while not (await event_log_of(a))["lost"]:
            await asyncio.sleep(0.05)
    await all_events_handled(bank)
    assert await bank.tokens() == {"a": 1, "a/0": 1}
    await a.follow(1_001, "balance", 0)


async def test_a_host_that_is_stopped_gives_back_the_events_it_has(
    hosts: Hosts, bank: Bank
) -> None:
    options = {"lease": 600.0, "closing": 0.2, "check_period": 0.5}
    a = await hosts.start(event_log=options)
    await a.fault("before event", "wait")
    await a.call("Order", account=0, token="a")
    await a.reached("before event")
    b = await hosts.start(event_log=options)
    assert await b.read("balance", 0) == 1_000
    await a.stop()
    await b.follow(1_001, "balance", 0)
    assert await bank.tokens() == {"a": 1, "a/0": 1}


async def test_an_event_that_fails_is_dead_in_the_end_and_nothing_else_suffers(
    hosts: Hosts, bank: Bank
) -> None:
    a, b = await hosts.pair(event_log=EAGER | {"attempts": 2, "longest_retry": 0.2})
    bad = {"logged_at": datetime.now(UTC), "due_at": datetime.now(UTC)}
    values = {
        "no JSON": "?",
        "bad payload": '{"t": "Settle", "d": {"account": []}}',
        "no account": '{"t": "Settle", "d": {"account": 99, "token": "none"}}',
        "unknown": '{"t": "unheard of", "d": {}}',
    }
    rows = [{"uuid": name, "value": value, "version": 0} | bad for name, value in values.items()]
    await bank.run(insert(log_tables.events).values(rows))
    await a.call("Order", account=0, token="a", count=3)
    await b.follow(1_003, "balance", 0)
    async with asyncio.timeout(PATIENCE):
        while (states := {row.uuid: row for row in await bank.events() if row.uuid in values}) and (
            sum(row.state == EventState.DEAD for row in states.values()) < 3
            or not states["unknown"].last_error
        ):
            await asyncio.sleep(0.05)
    assert states["unknown"].state == EventState.NEW  # a newer host may know it
    assert states["unknown"].attempts == 0
    assert "unheard of" in states["unknown"].last_error
    assert "NoResultFound" in states["no account"].last_error
    assert await bank.tokens() == {"a": 1, "a/0": 1, "a/1": 1, "a/2": 1}


async def event_log_of(host: Host) -> dict[str, Any]:
    """How a host is doing with events."""
    health: dict[str, Any] = (await host.ask("health"))["database"]["shards"][""]["events"]
    return health


async def all_events_handled(bank: Bank) -> None:
    """Wait until nothing is left to do in the log of events."""
    async with asyncio.timeout(PATIENCE):
        while any(row.state == EventState.NEW for row in await bank.events()):
            await asyncio.sleep(0.02)


async def kill_idle_transactions(bank: Bank) -> int:
    """Have the database give up transactions that wait for their clients, as a time-out does."""
    async with bank.engine.connect() as connection:
        killed = await connection.execute(
            text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE state = 'idle in transaction' AND datname = current_database()"
            )
        )
        number: int = killed.scalar_one()
        return number


# -- a host dies while it trims


async def test_a_host_that_dies_while_it_trims_leaves_the_rest_to_others(
    hosts: Hosts, bank: Bank
) -> None:
    old = {"logged_at": datetime.now(UTC) - timedelta(hours=2), "host_id": "long gone"}
    rows = [{"uuid": f"old {number}"} | old for number in range(20)]
    await bank.run(insert(log_tables.operations).values(rows))
    trimming = {"period": 0.3, "batch": 5}
    a = await hosts.start()
    assert await a.read("balance", 0) == 1_000
    b = await hosts.start(trimming=trimming)
    await b.fault("in trimming", "kill", passes=1)
    await b.gone()
    assert 0 < len(await bank.operations()) < 20
    c = await hosts.start(trimming=trimming)
    await c.call("Deposit", account=0, amount=1, token="c")
    await a.follow(1_001, "balance", 0)
    async with asyncio.timeout(PATIENCE):
        while len(left := [row.uuid for row in await bank.operations()]) > 2:
            await asyncio.sleep(0.05)
    assert left[0] == "old 19"  # it stays, to show that nothing is missing before what follows
    assert (await a.ask("health"))["operations"]["abandoned"] == 0


# -- a commit whose outcome is not known


@pytest.mark.parametrize("plan", ["lose the answer", "lose the commit", "delay the commit"])
async def test_a_commit_that_breaks_off_happens_once(hosts: Hosts, bank: Bank, plan: Plan) -> None:
    async with proxy_to(bank.url) as proxy:
        a, b = await asyncio.gather(hosts.start(database=proxy.url), hosts.start())
        assert await b.read("balance", 0) == 1_000
        proxy.plans.append(plan)
        await a.call("Deposit", account=0, amount=5, token="a")
        assert proxy.plans == []
        if plan == "delay the commit":
            await proxy.delayed.wait()
        assert await a.read("balance", 0) == 1_005
        await b.follow(1_005, "balance", 0)
        assert await bank.tokens() == {"a": 1}
        assert [each.token for each in await bank.commands()] == ["a"]


async def test_a_commit_that_raises_after_success_is_a_success(hosts: Hosts, bank: Bank) -> None:
    a = await hosts.start()
    await a.fault("in commit", "fail")
    assert await a.call("Order", account=0, token="a") is None
    assert (await a.ask("entered"))["a"] == 1
    assert (await bank.tokens())["a"] == 1


# -- notifications


async def test_a_lost_notification_costs_a_period_of_polling(hosts: Hosts) -> None:
    a, b = await hosts.pair(notifications="lost", operation_log={"check_period": 1})
    assert await b.read("balance", 0) == 1_000
    await a.call("Deposit", account=0, amount=5, token="a")
    await b.follow(1_005, "balance", 0)
    assert (await b.ask("health"))["database"]["watcher"]["received"] == 0


async def test_doubled_notifications_change_nothing(hosts: Hosts) -> None:
    a, b = await hosts.pair(notifications="doubled")
    assert await b.read("balance", 0) == 1_000
    for number in range(1, 4):
        await a.call("Deposit", account=0, amount=1, token=f"a{number}")
        await b.follow(1_000 + number, "balance", 0)
    health = await b.ask("health")
    assert health["operations"]["foreign"] == 3
    assert health["operations"]["failed"] == 0


async def test_a_host_that_nobody_can_notify_follows_and_is_notified_again(
    hosts: Hosts, postgres: str
) -> None:
    a, b = await hosts.pair(operation_log=NEVER_POLLED)
    assert await b.read("balance", 0) == 1_000
    assert await kill_connections(postgres) > 2
    await a.call("Deposit", account=0, amount=5, token="a1")
    await b.follow(1_005, "balance", 0)
    await a.call("Deposit", account=0, amount=5, token="a2")
    await b.follow(1_010, "balance", 0)


# -- gaps in the log


async def test_an_operation_that_commits_after_later_ones_is_not_missed(
    hosts: Hosts, bank: Bank
) -> None:
    a, b = await hosts.pair()
    c = await hosts.start()
    assert await b.read("pair", 0, 1) == [1_000, 1_000]
    await a.fault("before commit", "wait", seconds=1.5)
    late = a.ask("call", "Deposit", {"account": 0, "amount": 5, "token": "a"})
    await a.reached("before commit")
    for number in range(3):
        await c.call("Deposit", account=1, amount=1, token=f"c{number}")
    await b.follow([1_000, 1_003], "pair", 0, 1)
    await late
    await b.follow([1_005, 1_003], "pair", 0, 1)
    assert [each.token for each in await bank.commands()] == ["a", "c0", "c1", "c2"]


async def test_an_index_that_is_never_used_holds_nobody_up(hosts: Hosts, bank: Bank) -> None:
    a, b = await hosts.pair(operation_log=NEVER_POLLED)
    c = await hosts.start(operation_log=NEVER_POLLED)
    assert await c.read("balance", 0) == 1_000
    await a.fault("before commit", "kill")
    a.ask("call", "Deposit", {"account": 0, "amount": 5, "token": "a"})
    await a.gone()
    for number in range(1, 4):
        await b.call("Deposit", account=0, amount=1, token=f"b{number}")
        await c.follow(1_000 + number, "balance", 0)
    assert (await bank.operations())[0].index == 2


async def test_a_host_that_stood_still_while_the_log_was_trimmed_trusts_nothing(
    hosts: Hosts, bank: Bank
) -> None:
    a, b = await hosts.pair()
    assert await b.read("balance", 2) == 1_000
    await a.call("Deposit", account=2, amount=1, token="first")
    await b.follow(1_001, "balance", 2)  # it has read the log
    assert await b.read("pair", 0, 1) == [1_000, 1_000]
    b.pause()
    for number in range(3):
        await a.call("Deposit", account=0, amount=1, token=f"a{number}")
    await bank.run(delete(log_tables.operations))
    await a.call("Deposit", account=1, amount=1, token="last")
    b.resume()
    await b.follow([1_003, 1_001], "pair", 0, 1)
    assert (await b.ask("health"))["operations"]["abandoned"] == 1


# -- what can't be read


@pytest.mark.parametrize(
    "effects",
    [
        "no JSON",
        '{"calls": 5}',
        '{"replays": [["{\\"t\\": \\"unheard of\\", \\"d\\": {}}", null, {}]]}',
        '{"replays": [["{\\"t\\": \\"Compound\\", \\"d\\": {\\"account\\": []}}", null, {}]]}',
    ],
    ids=["no JSON", "another form", "an unknown tag", "a bad payload"],
)
async def test_an_operation_that_cannot_be_read_makes_everything_stale(
    hosts: Hosts, bank: Bank, effects: str
) -> None:
    a, b = await hosts.pair()
    assert await b.read("balance", 0) == 1_000
    await bank.run(update(AccountRow).values(balance=7))
    values = {"uuid": "x", "host_id": "elsewhere", "logged_at": datetime.now(UTC)}
    await bank.run(insert(log_tables.operations).values(**values, effects=effects))
    await a.call("Deposit", account=1, amount=1, token="a")
    await b.follow(8, "balance", 1)  # others are not held up
    await b.follow(7, "balance", 0)
    assert (await b.ask("health"))["operations"]["abandoned"] == 1


# -- clocks


async def test_hosts_whose_clocks_differ_see_what_the_others_do(hosts: Hosts, bank: Bank) -> None:
    early, late = await asyncio.gather(
        hosts.start(skew=-600, operation_log=NEVER_POLLED),
        hosts.start(skew=600, operation_log=NEVER_POLLED),
    )
    assert await early.read("balance", 0) == await late.read("balance", 0) == 1_000
    await early.call("Deposit", account=0, amount=1, token="early")
    await late.follow(1_001, "balance", 0)
    await late.call("Deposit", account=0, amount=1, token="late")
    await early.follow(1_002, "balance", 0)
    newcomer = await hosts.start(operation_log=NEVER_POLLED)
    assert await newcomer.read("balance", 0) == 1_002
    for number, host in enumerate((early, late), 1):
        await host.call("Deposit", account=0, amount=1, token=f"again {number}")
        await newcomer.follow(1_002 + number, "balance", 0)
    spread = [row.logged_at for row in await bank.operations()]
    assert spread[1] - spread[0] > timedelta(seconds=1_100)


# -- the database restarts


async def test_a_restart_of_the_database_in_mid_load_loses_and_doubles_nothing(
    postgres_server: PostgreSQL, tmp_path: Path
) -> None:
    async with fresh_database(postgres_server.url) as url, bank_at(url, accounts=8) as bank:
        async with hosts_of(url, tmp_path) as hosts:
            both = await hosts.pair(event_log=EAGER)
            loads = [host.ask("load", number, 80, 8, 4) for number, host in enumerate(both)]
            while len(await bank.operations()) < 30:
                await asyncio.sleep(0.02)
            await asyncio.to_thread(postgres_server.restart)
            done = [token for load in loads for token in (await load)["done"]]
            assert len(done) > 60
            await all_events_handled(bank)
            rows = await bank.journal()
            assert set(done) <= {token for token, _ in rows}
            assert set(rows.values()) == {1}
            balances = await bank.balances()
            assert replayed(dict.fromkeys(range(8), 1_000), await bank.commands()) == balances
            for account, balance in balances.items():
                for host in both:
                    await host.follow(balance, "balance", account)
            for host in both:
                assert (await host.ask("audit"))["stale"] == []


# -- many at once


async def test_fifty_commands_at_once_on_one_row_all_count(hosts: Hosts, bank: Bank) -> None:
    a, b = await hosts.pair()
    calls = []
    for number in range(25):
        calls.append(a.ask("call", "Compound", {"account": 0, "token": f"a{number}"}))
        calls.append(b.ask("call", "Deposit", {"account": 0, "amount": 1, "token": f"b{number}"}))
    await asyncio.gather(*calls)
    assert await bank.tokens() == {f"{name}{number}": 1 for number in range(25) for name in "ab"}
    expected = replayed({0: 1_000}, await bank.commands())[0]
    for host in (a, b):
        await host.follow(expected, "balance", 0)
        assert (await host.ask("audit"))["stale"] == []


# -- nested commands


async def test_what_a_failed_nested_command_wrote_is_undone_where_that_is_caught(
    hosts: Hosts, bank: Bank
) -> None:
    a, b = await hosts.pair()
    assert await b.read("pair", 0, 1) == [1_000, 1_000]
    transfer = {"source": 0, "target": 1, "amount": 5_000}
    with pytest.raises(HostError, match="TooLittle"):
        await a.call("Transfer", token="strict", **transfer)
    assert await bank.operations() == []
    assert await a.call("Transfer", token="lenient", is_lenient=True, **transfer) is False
    await b.follow([1_000, 1_001], "pair", 0, 1)
    assert await bank.journal() == {("lenient", "Deposit"): 1}
    assert (await b.ask("health"))["operations"]["foreign"] == 1
