"""Messages of a key are published in order, whatever fails, and one key does not hold up others."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import update

from afresh import App
from afresh.brokers import Outcome
from afresh.primitives.delays import RetryDelays
from tests.brokers.scripted import ScriptedTransport, shop_on, tables_of, until
from tests.brokers.shop import PlaceOrder

COUNT = 12
KEYS = "abc"


async def place_all(app: App) -> list[str]:
    """Place orders of each user, in turn; returns their notes."""
    notes = [f"{key}{number:02}" for number in range(COUNT) for key in KEYS]
    for note in notes:
        await app.call(PlaceOrder(note[0], note))
    return notes


def of(key: str, notes: list[str]) -> list[str]:
    return [note for note in notes if note[0] == key]


@pytest.mark.parametrize("fetch", [2, 7, 256])
async def test_a_key_that_keeps_failing_stays_in_order_and_the_others_flow(fetch: int) -> None:
    transport = ScriptedTransport(seconds=0.002)
    transport.is_away = True
    retries = RetryDelays.fixed(0.004)
    async with shop_on(transport, fetch=fetch, retries=retries, attempts=10_000) as app:
        notes = await place_all(app)

        def answer(note: str) -> Outcome:
            others_are_there = len(transport.confirmed) >= 2 * COUNT
            is_first_time = transport.tried.count(note) < 2
            if note == "a00" and not others_are_there:
                return Outcome.TRANSIENT
            return Outcome.TRANSIENT if note == "b05" and is_first_time else Outcome.CONFIRMED

        transport.answer = answer
        transport.is_away = False
        await until(lambda: len(transport.confirmed) == len(notes))
        for key in KEYS:
            assert of(key, transport.confirmed) == of(key, notes)
        assert {note[0] for note in transport.confirmed[: 2 * COUNT]} == {"b", "c"}


async def test_what_waited_for_a_message_that_failed_does_not_wait_for_the_next_poll() -> None:
    transport = ScriptedTransport()
    transport.is_away = True
    async with shop_on(transport, poll=30.0) as app:
        notes = await place_all(app)
        transport.answer = lambda note: (
            Outcome.TRANSIENT if transport.tried.count(note) < 2 else Outcome.CONFIRMED
        )
        transport.is_away = False
        await until(lambda: len(transport.confirmed) == len(notes), within=10.0)
        for key in KEYS:
            assert of(key, transport.confirmed) == of(key, notes)


async def test_a_dead_head_lets_its_key_go_on_unless_that_is_to_halt() -> None:
    transport = ScriptedTransport()
    transport.answer = lambda note: Outcome.PERMANENT if note == "a00" else Outcome.CONFIRMED
    async with shop_on(transport) as app:
        notes = await place_all(app)
        await until(lambda: len(transport.confirmed) == len(notes) - 1)
        assert of("a", transport.confirmed) == of("a", notes)[1:]
        assert len(await app.broker.outbox().dead()) == 1


@pytest.mark.parametrize("decision", ["requeue", "drop"])
async def test_a_key_that_was_halted_goes_on_in_order_once_its_head_is_decided_about(
    decision: str,
) -> None:
    transport = ScriptedTransport()
    transport.answer = lambda note: Outcome.PERMANENT if note == "a00" else Outcome.CONFIRMED
    async with shop_on(transport, dead_head={"tests": "halt"}, fetch=5) as app:
        notes = await place_all(app)
        await until(lambda: len(transport.confirmed) == 2 * COUNT)
        await asyncio.sleep(0.2)
        assert of("a", transport.confirmed) == []
        transport.answer = lambda note: Outcome.CONFIRMED
        desk = app.broker.outbox()
        (dead,) = await desk.dead()
        assert await getattr(desk, decision)([dead.id]) == 1
        expected = of("a", notes)[decision == "drop" :]
        await until(lambda: len(of("a", transport.confirmed)) == len(expected))
        assert of("a", transport.confirmed) == expected


async def test_a_halted_key_costs_no_work_while_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transport = ScriptedTransport()
    transport.answer = lambda note: Outcome.PERMANENT
    async with shop_on(transport, dead_head={"tests": "halt"}, poll=0.2) as app:
        relay = app.broker.relay()
        await app.call(PlaceOrder("a", "a00"))
        await until(lambda: relay.died)
        await app.call(PlaceOrder("a", "a01"))
        outbox = tables_of(app).outbox
        async with app.database.shard().write.begin() as connection:
            failed_before = update(outbox).values(next_attempt_at=outbox.c.created_at)
            await connection.execute(failed_before, execution_options={"touches": ()})
        await asyncio.sleep(0.5)
        rounds = 0
        work = relay.work

        async def counted(*, signalled: bool) -> float:
            nonlocal rounds
            rounds += 1
            return await work(signalled=signalled)

        monkeypatch.setattr(relay, "work", counted)
        await asyncio.sleep(1.0)
        assert 1 <= rounds <= 8
        assert transport.tried == ["a00"]
