"""Random histories of a relay: whatever fails, and when, each message goes out, and in its order.

The broker refuses messages for now or for good, takes its time, goes away, and goes away having
taken a message that it did not confirm. Each try is held against what may be tried then.
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from sqlalchemy import select

from afresh.brokers import Outcome
from afresh.brokers.tables import OutboxState, find_broker_tables
from afresh.primitives.delays import RetryDelays
from tests.brokers.scripted import ScriptedTransport, shop_on, until
from tests.brokers.shop import PlaceOrder

HISTORIES = 400 if os.environ.get("AFRESH_SOAK") == "1" else 25
ORDERS = 60


class Caprice(ScriptedTransport):
    """Does with each message what chance says, and knows what may be tried.

    Args:
        chance: the only source of chance in it.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.is_calm = False
        self.placed: dict[str, list[str]] = {}
        """The notes of a key, in the order of commits."""
        self.taken_unconfirmed: list[str] = []
        self.refused_for_good: set[str] = set()
        self.under_way: set[str] = set()
        self.wrong: list[str] = []
        self.answer = self.whatever

    def whatever(self, note: str) -> Outcome:
        luck = 1.0 if self.is_calm else self.chance.random()
        if luck < 0.05:
            self.refused_for_good.add(note)
            return Outcome.PERMANENT
        if luck < 0.15:
            return Outcome.TRANSIENT
        if luck < 0.20:
            self.taken_unconfirmed.append(note)
            return Outcome.UNAVAILABLE
        return Outcome.CONFIRMED

    async def publish(self, messages):
        (message,) = messages
        note = message.body.decode()
        note = note[note.index('"note":"') + 8 :].partition('"')[0]
        self.seconds = self.chance.choice([0.0, 0.0, 0.001, 0.004])
        if not self.is_away:
            self._look_at(note)
            self.under_way.add(note)
        try:
            return await super().publish(messages)
        finally:
            self.under_way.discard(note)

    def _look_at(self, note: str) -> None:
        if note in self.confirmed or note in self.refused_for_good:
            self.wrong.append(f"{note} was tried when it was done with")
        if note in self.under_way:
            self.wrong.append(f"{note} was tried while it was under way")
        earlier = self.placed[note[0]]
        for other in earlier[: earlier.index(note)]:
            if other not in self.confirmed and other not in self.refused_for_good:
                self.wrong.append(f"{note} was tried before {other} was done with")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_each_message_goes_out_once_confirmed_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    transport = Caprice(chance)
    options = {
        "fetch": chance.choice([1, 2, 3, 8, 256]),
        "window": chance.choice([1, 2, 5, 128]),
        "retries": RetryDelays.fixed(chance.choice([0.002, 0.02, 0.1])),
        "poll": chance.choice([0.02, 0.2, 5.0]),
        "attempts": 1_000,
    }
    keys = "abcdef"[: chance.choice([1, 2, 6])]
    async with shop_on(transport, **options) as app:

        async def place() -> None:
            for number in range(ORDERS):
                key = chance.choice(keys)
                note = f"{key}{number:02}"
                transport.placed.setdefault(key, []).append(note)
                await app.call(PlaceOrder(key, note))
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.choice([0.0, 0.003, 0.02]))
                if chance.random() < 0.05:
                    transport.is_away = not transport.is_away
            transport.is_away = False
            await asyncio.sleep(0.05)
            transport.is_calm = True

        def are_all_done() -> bool:
            done = transport.refused_for_good.union(transport.confirmed)
            return all(note in done for notes in transport.placed.values() for note in notes)

        await place()
        await until(are_all_done, within=15.0)
        tables = find_broker_tables(app.database.metadata)
        assert tables is not None
        outbox = tables.outbox.c

        async def states() -> dict[str, int]:
            async with app.database.read() as session:
                rows = await session.execute(select(outbox.body, outbox.state))
                return {
                    body.decode().partition('"note":"')[2].partition('"')[0]: state
                    for body, state in rows
                }

        async with asyncio.timeout(5):
            while OutboxState.NEW in (found := await states()).values():
                await asyncio.sleep(0.01)

    assert transport.wrong == []
    assert len(transport.confirmed) == len(set(transport.confirmed))
    assert {note for note, state in found.items() if state == OutboxState.DEAD} == (
        transport.refused_for_good
    )
    for notes in transport.placed.values():
        wanted = [note for note in notes if note not in transport.refused_for_good]
        assert [note for note in transport.confirmed if note in notes] == wanted
