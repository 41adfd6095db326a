"""From a command in one service to an effect in another: exactly as committed, and once."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select, update

from afresh.brokers import ConsumerOptions, OutgoingMessage, RelayOptions
from afresh.errors import EventConflictError

from .shop import CONSUMER, QUICK, OrderPlaced, OrderRow, PlaceOrder, world


async def test_an_order_becomes_a_note_and_the_page_that_counts_notes_goes_stale() -> None:
    async with world() as w:
        assert await w.service.count("u1") == 0
        page = await w.service.count.capture("u1")
        await w.shop.call(PlaceOrder("u1", "first"))
        async with asyncio.timeout(10):
            await page.when_invalidated()
        assert await w.service.count("u1") == 1
        assert w.service.handed == [OrderPlaced(1, "u1", "first")]


async def test_what_is_rolled_back_is_not_published() -> None:
    async with world() as w:
        with pytest.raises(ValueError):
            await w.shop.call(PlaceOrder("u1", "refused", is_failing=True))
        await w.shop.call(PlaceOrder("u1", "taken"))
        await w.settled(1)
        assert await w.service.all() == ["taken"]
        assert w.shop.broker.relay().published == 1


async def test_messages_of_a_key_arrive_in_the_order_of_the_commands() -> None:
    async with world() as w:
        for number in range(40):
            await w.shop.call(PlaceOrder(f"u{number % 3}", f"{number % 3}-{number:02}"))
        await w.settled(40)
        for user in range(3):
            notes = [note for note in await w.service.all() if note.startswith(f"{user}-")]
            assert notes == sorted(notes)


async def test_a_broker_that_is_away_delays_messages_and_charges_no_attempts() -> None:
    async with world() as w:
        w.broker.stop()
        for number in range(5):
            await w.shop.call(PlaceOrder("u1", f"n{number}"))
        async with asyncio.timeout(10):
            while w.shop.broker.relay().unavailable is None:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert w.shop.health()["status"] == "degraded"
        assert await w.service.all() == []
        w.broker.resume()
        await w.settled(5)
        assert await w.service.all() == [f"n{number}" for number in range(5)]
        assert w.shop.broker.relay().refused == 0
        assert w.shop.health()["status"] == "ok"


async def test_an_event_that_fails_for_now_is_handled_again_and_holds_up_its_key_only() -> None:
    async with world() as w:
        w.service.failures["first"] = [ConnectionError("away"), ConnectionError("away")]
        await w.shop.call(PlaceOrder("u1", "first"))
        await w.shop.call(PlaceOrder("u1", "second"))
        await w.shop.call(PlaceOrder("u2", "other"))
        await w.settled(3)
        notes = await w.service.all()
        assert notes.index("first") < notes.index("second")
        assert sorted(notes) == ["first", "other", "second"], "failed attempts left nothing"


async def test_an_event_that_can_not_be_handled_is_put_aside_and_can_be_requeued() -> None:
    async with world() as w:
        w.service.failures["bad"] = [ValueError("no such user")]
        await w.shop.call(PlaceOrder("u1", "bad"))
        await w.shop.call(PlaceOrder("u1", "good"))
        await w.settled(1)
        broker = w.notes.broker
        (subscription,) = broker.subscriptions
        (dead,) = await broker.dead(subscription)
        assert "no such user" in dead.reason
        assert dead.error == "ValueError"
        assert await broker.requeue(subscription) == 1
        await w.settled(2)
        assert sorted(await w.service.all()) == ["bad", "good"]


async def test_an_event_that_keeps_failing_is_put_aside_after_its_last_delivery() -> None:
    async with world() as w:
        w.service.failures["bad"] = [ConnectionError(f"away {number}") for number in range(50)]
        await w.shop.call(PlaceOrder("u1", "bad"))
        await w.shop.call(PlaceOrder("u1", "good"))
        await w.settled(1)
        (subscription,) = w.notes.broker.subscriptions
        assert len(await w.notes.broker.dead(subscription)) == 1
        assert w.service.deliveries[:4] == [1, 2, 3, 4], "each delivery is counted"


async def test_a_message_that_comes_twice_has_its_effect_once() -> None:
    async with world() as w:
        await w.shop.call(PlaceOrder("u1", "once"))
        await w.settled(1)
        async with asyncio.timeout(10):
            while w.shop.broker.relay().health()["in_hand"]:
                await asyncio.sleep(0.01)
        table = w.shop.broker._tables.outbox
        async with w.shop.database.shard().write.begin() as connection:
            await connection.execute(update(table).values(state=0))  # as if never confirmed
        w.shop.database.watcher.changed("outbox", "")
        async with asyncio.timeout(10):
            while w.notes.health()["broker"]["subscriptions"][0]["duplicate"] < 1:
                await asyncio.sleep(0.01)
        assert await w.service.all() == ["once"]


async def test_a_message_id_is_used_once() -> None:
    async with world() as w:
        await w.shop.call(PlaceOrder("u1", "a", message_id="m1"))
        with pytest.raises(EventConflictError):
            await w.shop.call(PlaceOrder("u1", "b", message_id="m1"))
        async with w.shop.database.read() as session:
            assert await session.scalar(select(func.count()).select_from(OrderRow)) == 1


async def test_poison_is_put_aside_at_once() -> None:
    async with world() as w:
        transport = w.shop.broker.transport
        attributes = {"specversion": "1.0", "id": "p1", "source": "/x"}
        kind = "tests.order_placed.v1"
        await transport.publish(
            [
                OutgoingMessage("p1", "tests", kind, b"{", attributes={**attributes, "type": kind}),
                OutgoingMessage("p2", "tests", kind, b"{}", attributes=attributes),
            ]
        )
        (subscription,) = w.notes.broker.subscriptions
        async with asyncio.timeout(10):
            while len(await w.notes.broker.dead(subscription)) < 2:
                await asyncio.sleep(0.01)
        assert w.service.handed == []


@pytest.mark.parametrize("unknown", ["ignore", "dead_letter"])
async def test_unknown_types_are_counted_or_put_aside(unknown: str) -> None:
    options = ConsumerOptions(retries=QUICK, unknown=unknown)  # type: ignore[arg-type]
    async with world(consumer=options) as w:
        attributes = {"specversion": "1.0", "id": "p1", "source": "/x", "type": "tests.other.v1"}
        await w.shop.broker.transport.publish(
            [OutgoingMessage("p1", "tests", "tests.other.v1", b"{}", attributes=attributes)]
        )
        async with asyncio.timeout(10):
            while w.notes.health()["broker"]["subscriptions"][0]["unknown"] < 1:
                await asyncio.sleep(0.01)
        (subscription,) = w.notes.broker.subscriptions
        dead = await w.notes.broker.dead(subscription)
        assert len(dead) == (1 if unknown == "dead_letter" else 0)


async def test_a_message_that_is_refused_for_good_is_dead_and_can_be_requeued_or_dropped() -> None:
    async with world() as w:
        w.shop.broker.transport.capabilities = _limited(w.shop.broker.transport.capabilities)
        await w.shop.call(PlaceOrder("u1", "x" * 500))
        await w.shop.call(PlaceOrder("u1", "short"))
        await w.settled(1)
        outbox = w.shop.broker.outbox()
        (dead,) = await outbox.dead()
        assert dead.attempts == 1
        assert "bytes" in dead.error
        assert dead.key == "u1"
        assert await outbox.requeue([dead.id]) == 1
        async with asyncio.timeout(10):
            while not await outbox.dead():
                await asyncio.sleep(0.01)
        assert await outbox.drop() == 1
        assert await outbox.dead() == []


async def test_a_dead_head_can_halt_its_key() -> None:
    options = RelayOptions(poll=0.05, retries=QUICK, dead_head={"tests": "halt"})
    async with world(relay=options) as w:
        w.shop.broker.transport.capabilities = _limited(w.shop.broker.transport.capabilities)
        await w.shop.call(PlaceOrder("u1", "x" * 500))
        await w.shop.call(PlaceOrder("u1", "behind"))
        await w.shop.call(PlaceOrder("u2", "other"))
        await w.settled(1)
        await asyncio.sleep(0.2)
        assert await w.service.all() == ["other"]
        assert await w.shop.broker.outbox().drop() == 1
        await w.settled(2)
        assert await w.service.all() == ["other", "behind"]


def _limited(capabilities: object) -> object:
    """The same, with a limit that events pass in the outbox but not at the broker."""
    from dataclasses import replace

    return replace(capabilities, max_bytes=300)  # type: ignore[type-var]


async def test_events_that_are_handled_by_two_hosts_have_one_effect_each() -> None:
    async with world(consumer=CONSUMER) as w:
        await asyncio.gather(*(w.shop.call(PlaceOrder(f"u{n}", f"n{n}")) for n in range(20)))
        await w.settled(20)
        assert sorted(await w.service.all()) == sorted(f"n{n}" for n in range(20))
        assert w.notes.health()["broker"]["subscriptions"][0]["handled"] == 20
