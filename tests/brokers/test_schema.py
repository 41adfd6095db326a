"""Old and new versions of services side by side, around one broker: each reads what it can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec
import pytest
from sqlalchemy import MetaData

from afresh import App, Command, ComputeService, command_handler
from afresh.brokers import Broker, ConsumerOptions, MemoryTransport, event, on_event
from afresh.brokers.transports.memory import MemoryBroker
from afresh.db import Database
from tests.brokers.scripted import until
from tests.brokers.shop import CONSUMER, RELAY


@event("billing.paid")
class PaidBefore(msgspec.Struct, frozen=True):
    order_id: int
    amount: int  # in whole units of money


@event("billing.paid")
class PaidWithNote(msgspec.Struct, frozen=True):
    """The same version, and one field more."""

    order_id: int
    amount: int
    note: str = ""


def in_cents(fields: dict[str, Any]) -> dict[str, Any]:
    return {"order_id": fields["order_id"], "cents": 100 * fields["amount"]}


@event("billing.paid", version=2, upcasters={1: in_cents})
class Paid(msgspec.Struct, frozen=True):
    order_id: int
    cents: int


class Publish(Command[None], frozen=True):
    """Publishes each event that it names, in one operation."""

    order_id: int
    versions: list[Literal["before", "with note", "now"]]


class Billing(ComputeService):
    def __init__(self, database: Database) -> None:
        self.database = database

    @command_handler
    async def publish(self, command: Publish) -> None:
        number = command.order_id
        events = {
            "before": PaidBefore(number, number),
            "with note": PaidWithNote(number, number, "thanks"),
            "now": Paid(number, 100 * number),
        }
        async with self.database.operation() as op:
            for version in command.versions:
                op.publish(events[version], key="k")


class Reader(ComputeService):
    """What came is in `came`."""

    def __init__(self) -> None:
        self.came: list[Any] = []


class OldReader(Reader):
    @on_event(PaidBefore, group="old")
    async def receive(self, event: PaidBefore) -> None:
        self.came.append(event)


class NoteReader(Reader):
    @on_event(PaidWithNote, group="note")
    async def receive(self, event: PaidWithNote) -> None:
        self.came.append(event)


class NewReader(Reader):
    @on_event(Paid, group="new")
    async def receive(self, event: Paid) -> None:
        self.came.append(event)


class Town:
    """A publisher that knows all versions, and readers that each know one."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.broker = MemoryBroker()
        self._stack = stack

    async def app(self, service: Any, options: ConsumerOptions = CONSUMER) -> App:
        app = App(
            database=Database("sqlite+aiosqlite://", metadata=MetaData(), create_tables=True),
            broker=Broker(MemoryTransport(broker=self.broker), relay=RELAY, consumer=options),
        )
        if service is None:
            service = Billing(app.database)
        app.add(service, is_served=False)
        return await self._stack.enter_async_context(app)


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        yield Town(stack)


async def test_readers_of_two_versions_read_what_old_and_new_publishers_send(town: Town) -> None:
    old, note, new = OldReader(), NoteReader(), NewReader()
    for reader in (old, note, new):
        await town.app(reader)
    billing = await town.app(None)
    await billing.call(Publish(1, ["before"]))
    await billing.call(Publish(2, ["with note"]))
    await until(lambda: all(len(each.came) == 2 for each in (old, note, new)))
    assert old.came == [PaidBefore(1, 1), PaidBefore(2, 2)], "It leaves out what it does not know."
    assert note.came == [PaidWithNote(1, 1), PaidWithNote(2, 2, "thanks")]
    assert new.came == [Paid(1, 100), Paid(2, 200)]


async def test_a_new_version_is_published_beside_the_old_one_until_nobody_reads_that(
    town: Town,
) -> None:
    old, new = OldReader(), NewReader()
    old_app, new_app = await town.app(old), await town.app(new)
    billing = await town.app(None)
    await billing.call(Publish(1, ["before"]))
    await billing.call(Publish(2, ["before", "now"]))
    await billing.call(Publish(3, ["now"]))
    (old_group,), (new_group,) = old_app.broker.subscriptions, new_app.broker.subscriptions
    async with asyncio.timeout(10):
        while len(await old_app.broker.dead(old_group)) < 2:
            await asyncio.sleep(0.01)
    await until(lambda: len(new.came) == 4)
    assert old.came == [PaidBefore(1, 1), PaidBefore(2, 2)]
    assert new.came == [Paid(1, 100), Paid(2, 200), Paid(2, 200), Paid(3, 300)]
    assert not await new_app.broker.dead(new_group)
    dead = await old_app.broker.dead(old_group)
    assert all("newer than version 1" in each.reason for each in dead)


@pytest.mark.parametrize("unknown", ["ignore", "dead_letter"])
async def test_what_no_reader_knows_is_counted_or_kept(
    town: Town, unknown: Literal["ignore", "dead_letter"]
) -> None:
    @event("billing.refused")
    class Refused(msgspec.Struct, frozen=True):
        order_id: int

    class Other(Reader):
        @on_event(Refused, group="other")
        async def receive(self, event: Refused) -> None:
            self.came.append(event)

    other = Other()
    app = await town.app(other, ConsumerOptions(unknown=unknown))
    billing = await town.app(None)
    await billing.call(Publish(1, ["before", "now"]))
    await until(lambda: app.broker.health()["subscriptions"][0]["unknown"] == 2)
    (group,) = app.broker.subscriptions
    assert len(await app.broker.dead(group)) == (2 if unknown == "dead_letter" else 0)
    assert other.came == []
