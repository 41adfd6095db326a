"""Where reads are tracked nobody writes an invalidation, and nothing is ever stale.

After any history of queries and changes on two hosts of one database, `audit()` finds nothing: on
the host that changed something at once, on the other one as soon as it has read the log. Queries
join, aggregate and nest; changes move keys, cascade, fail, and are undone.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from afresh.graph import nodes
from afresh.testing import audit, fresh_graph
from tests.db.tracking.histories import Change, Query, queries, transactions
from tests.db.tracking.tracked_shop import Host, together

HISTORIES = 200 if not os.environ.get("AFRESH_SOAK") else settings.default.max_examples

TALLY: Counter[str] = Counter()

hosts = st.integers(0, 1)
few = st.lists(st.integers(0, 5), min_size=1, max_size=4)
steps = st.one_of(
    st.tuples(st.just("ask"), hosts, few),
    st.tuples(st.just("change"), hosts, transactions),
    st.tuples(st.just("change"), hosts, transactions),
    st.tuples(st.just("race"), hosts, few, transactions),
    st.tuples(st.just("deliver"), hosts),
)
plans = st.lists(steps, min_size=2, max_size=7)
some_queries = queries.flatmap(
    lambda every: st.lists(st.sampled_from(every), min_size=6, max_size=6, unique=True)
)


def in_a_hurry(connection: Any, record: Any) -> None:
    """These histories need not outlive the machine."""
    connection.execute("PRAGMA synchronous = OFF")


class World:
    """An event loop with two hosts in it, for all histories."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.hosts = [Host(url) for _ in range(2)]
        self.runner.run(self.hosts[0].database.create_tables())

    def close(self) -> None:
        for host in self.hosts:
            self.runner.run(host.database.aclose())
        self.runner.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('tracked') / 'shop.db'}")
    for host in made.hosts:
        event.listen(host.database.shard().write.sync_engine, "connect", in_a_hurry)
    yield made
    made.close()
    print(f"\n{dict(TALLY)}")


ORDINARY = settings(
    derandomize=not os.environ.get("AFRESH_SOAK"),
    suppress_health_check=[HealthCheck.too_slow],
    # A history takes too long to try hundreds of shorter ones.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


@pytest.mark.soak
def test_after_any_history_nothing_is_stale(world: World) -> None:
    @settings(ORDINARY, max_examples=HISTORIES)
    @given(some=some_queries, plan=plans)
    def histories(some: list[Query], plan: list[Any]) -> None:
        with fresh_graph():
            world.runner.run(live(world.hosts, some, plan))

    histories()
    # They were no empty ones: they have made results stale, in races too, and left others alone.
    assert TALLY["histories"] >= min(HISTORIES, 200)
    assert TALLY["committed"] > 5 * TALLY["refused"] > 0
    assert TALLY["stale at once"] > TALLY["histories"]
    assert TALLY["stale by the log"] > TALLY["histories"]
    assert TALLY["kept"] > TALLY["stale at once"]
    assert TALLY["audited"] > 10 * TALLY["histories"]


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_nothing_is_stale_on_servers_either(request: pytest.FixtureRequest, server: str) -> None:
    world = World(request.getfixturevalue(f"{server}_database"))

    @settings(ORDINARY, max_examples=HISTORIES // 20)
    @given(some=some_queries, plan=plans)
    def histories(some: list[Query], plan: list[Any]) -> None:
        with fresh_graph():
            world.runner.run(live(world.hosts, some, plan))

    try:
        histories()
    finally:
        world.close()


async def live(hosts: list[Host], some: list[Query], plan: list[Any]) -> None:
    TALLY["histories"] += 1
    await hosts[0].begin_anew()
    for host in hosts:
        await host.apply_log()
        for number in range(len(some)):
            await ask(host, some, number)
    behind = set[Host]()
    for kind, number, *arguments in plan:
        host = hosts[number]
        if kind == "ask":
            for each in arguments[0]:
                await ask(host, some, each)
        elif kind == "deliver":
            await deliver(host)
            behind.discard(host)
        else:
            before = known(host)
            asks = (
                []
                if kind == "change"
                else [(every, each) for each in arguments[0] for every in hosts]
            )
            await together(
                change(host, arguments[-1]), *(ask(every, some, each) for every, each in asks)
            )
            if not asks:
                TALLY["kept"] += known(host)
                TALLY["stale at once"] += before - known(host)
            behind.add(hosts[1 - number])
            if host not in behind:
                await check(host)
    for host in hosts:
        await deliver(host)
        await check(host)


async def ask(host: Host, some: list[Query], number: int) -> None:
    query = some[number]
    if number == 4:
        await host.answers.ask_both(query, some[1])
    elif number == 5:
        for key in (1, 2, 4):
            await host.answers.order(key)
    else:
        await host.answers.ask(query)


async def change(host: Host, changes: list[Change]) -> None:
    TALLY["committed" if await host.change(changes) else "refused"] += 1


async def deliver(host: Host) -> None:
    before = known(host)
    await host.apply_log()
    TALLY["stale by the log"] += before - known(host)


async def check(host: Host) -> None:
    """Nothing is stale of what a host knows that has heard of every change."""
    found = await audit(host.answers)
    assert not found.stale, str(found)
    TALLY["audited"] += found.checked


def known(host: Host) -> int:
    """How many fresh results a host has."""
    return sum(node.is_consistent and node.keeper.instance is host.answers for node in nodes())
