"""Programs that track what they read: commands say nothing of invalidation, and all hosts know."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from afresh import App, ComputeService, compute_method
from afresh.commands import Command, Commander, EventCommand, command_handler
from afresh.db import Database
from afresh.operations import RetryPolicy
from afresh.primitives.delays import RetryDelays
from afresh.primitives.transience import Transience
from afresh.testing import audit, fresh_graph
from tests.db.tracking.shop import Base, Order, User


class Place(Command[int], frozen=True):
    user: int
    total: int
    then: str = ""


class Rename(Command[None], frozen=True):
    user: int
    name: str


class Placed(Command[None], EventCommand, frozen=True):
    order: int


class Busy(Exception):
    transience = Transience.TRANSIENT


class Orders(ComputeService):
    def __init__(self, database: Database, commander: Commander) -> None:
        self.database = database
        self.commander = commander
        self.busy = 0

    @compute_method
    async def total(self, user: int) -> int:
        async with self.database.read() as session:
            query = select(func.sum(Order.total)).where(Order.user_id == user)
            return await session.scalar(query) or 0

    @compute_method
    async def name(self, user: int) -> str:
        async with self.database.read() as session:
            return (await session.get_one(User, user)).name

    @command_handler
    async def place(self, command: Place) -> int:
        async with self.database.operation() as op:
            order = Order(user_id=command.user, total=command.total)
            op.session.add(order)
            await op.session.flush()
            op.add_event(Placed(order.id))
        if command.then == "busy" and self.busy:
            self.busy -= 1
            async with self.database.operation() as op:
                (await op.session.get_one(User, 2)).name = "in vain"
            raise Busy
        if command.then == "rename":
            with pytest.raises(ValueError):
                await self.commander.call(Rename(1, "refused"))
        return order.id

    @command_handler
    async def rename(self, command: Rename) -> None:
        async with self.database.operation() as op:
            (await op.session.get_one(User, command.user)).name = command.name
        if command.name == "refused":
            raise ValueError(command.name)

    @command_handler
    async def placed(self, event: Placed) -> None:
        async with self.database.operation() as op:
            (await op.session.get_one(Order, event.order)).status = "seen"


class Host:
    """An app on a database that tracks."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, metadata=Base.metadata, track=True, create_tables=True)
        self.app = App(database=self.database, retries=RetryPolicy(delays=RetryDelays.fixed(0)))
        self.orders = self.app.add(Orders(self.database, self.app.commander))

    async def changes(self) -> list[Any]:
        """What operations have logged of changes, in order."""
        log = self.database.tables.operations
        async with self.database.read() as session:
            rows = await session.scalars(select(log.c.effects).order_by(log.c.index))
            decoded = [msgspec.json.decode(row) for row in rows if row is not None]
        return [each["changes"]["default"] for each in decoded if "changes" in each]


async def fill(host: Host) -> None:
    async with host.database.operation() as op:
        op.session.add_all([User(id=1, name="a"), User(id=2, name="b")])


async def test_what_a_command_changes_is_stale_on_its_host_at_once_and_on_others_soon(
    any_database: str,
) -> None:
    here, there = Host(any_database), Host(any_database)
    with fresh_graph():
        async with here.app, there.app:
            await fill(here)
            name = await here.orders.name.capture(1)
            total = await there.orders.total.capture(1)
            assert await here.orders.total(1) == total.value == 0
            await here.app.call(Place(1, 10))
            assert await here.orders.total(1) == 10
            assert name.is_consistent
            async with asyncio.timeout(20):
                await total.when_invalidated()
            assert await there.orders.total(1) == 10
            assert not (await audit()).stale


async def test_what_is_undone_and_what_is_logged_makes_nothing_stale(sqlite_database: str) -> None:
    host = Host(sqlite_database)
    with fresh_graph():
        async with host.app:
            await fill(host)
            names = [await host.orders.name.capture(user) for user in (1, 2)]
            host.orders.busy = 1
            order = await host.app.call(Place(1, 10, "busy"))
            await host.app.call(Place(2, 20, "rename"))
            assert all(name.is_consistent for name in names)
            await host.app.call(Rename(1, "z"))
            assert [name.is_consistent for name in names] == [False, True]
            assert not (await audit()).stale
            placed = (await host.changes())[1]
    assert placed.keys() == {"orders"}
    assert placed["orders"] == [{"id": order, "user_id": 1}]
