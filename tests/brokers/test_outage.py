"""A broker that is away costs no message an attempt; what it refuses for good is dead."""

from __future__ import annotations

import asyncio

from sqlalchemy import select

from afresh.brokers import Outcome, RelayOptions, Subscription
from afresh.brokers.transports.rabbitmq import RabbitTransport
from afresh.primitives.clock import use_clock
from afresh.testing import FakeClock
from tests.brokers.scripted import ScriptedTransport, shop_on, tables_of, until
from tests.brokers.shop import PlaceOrder, world
from tests.brokers.test_transports import Seen

NOTES = [f"a{number:02}" for number in range(10)]


class _Counting(ScriptedTransport):
    starts = 0

    async def start(self) -> None:
        self.starts += 1
        await super().start()


async def test_half_a_minute_without_a_broker_charges_no_attempts_and_is_asked_for_rarely() -> None:
    transport = _Counting()
    defaults = RelayOptions()
    with use_clock(FakeClock()) as clock:
        async with shop_on(transport, poll=defaults.poll, pauses=defaults.pauses) as app:
            transport.is_away = True
            for note in NOTES:
                await app.call(PlaceOrder("a", note))
            transport.starts = 0

            async def pass_time(seconds: int) -> None:
                for _ in range(2 * seconds):
                    await clock.advance(0.5)
                    await asyncio.sleep(0.01)

            await pass_time(30)
            assert 3 <= transport.starts <= 8
            async with app.database.shard().read.connect() as connection:
                rows = (await connection.execute(select(tables_of(app).outbox))).all()
            assert {(row.state, row.attempts) for row in rows} == {(0, 0)}
            assert app.broker.relay().refused == 0
            transport.is_away = False
            await pass_time(40)
            assert transport.confirmed == NOTES


async def test_messages_that_never_go_are_dead_at_once_and_the_others_go_on() -> None:
    transport = ScriptedTransport()
    transport.answer = lambda note: Outcome.PERMANENT if note == "a03" else Outcome.CONFIRMED
    async with shop_on(transport) as app:
        for note in NOTES:
            await app.call(PlaceOrder("a", note))
        await until(lambda: len(transport.confirmed) == len(NOTES) - 1)
        (dead,) = await app.broker.outbox().dead()
        assert transport.tried.count("a03") == 1
        assert (dead.attempts, dead.error) == (1, "permanent")


async def test_what_has_nowhere_to_go_at_rabbitmq_is_dead_and_goes_when_there_is_a_queue(
    rabbitmq: str, destination: str
) -> None:
    async with world(transport=RabbitTransport(rabbitmq)) as w:
        await w.shop.call(PlaceOrder("u1", "lost?", destination=destination))
        await until(lambda: w.shop.broker.relay().died)
        desk = w.shop.broker.outbox()
        (dead,) = await desk.dead()
        assert "queue" in dead.error
        seen = Seen()
        subscription = Subscription(destination, "readers")
        subscribed = await w.shop.broker.transport.subscribe(subscription, seen)
        assert await desk.requeue() == 1
        (came,) = await seen.wait(1)
        assert came.attributes["id"] == dead.message_id
        await subscribed.aclose()


async def test_a_message_that_is_refused_too_often_is_dead() -> None:
    transport = ScriptedTransport()
    transport.answer = lambda note: Outcome.TRANSIENT if note == "a00" else Outcome.CONFIRMED
    async with shop_on(transport, attempts=3) as app:
        for note in NOTES:
            await app.call(PlaceOrder("a", note))
        await until(lambda: len(transport.confirmed) == len(NOTES) - 1)
        (dead,) = await app.broker.outbox().dead()
        assert (dead.attempts, transport.tried.count("a00")) == (3, 3)
        assert transport.confirmed == NOTES[1:]
