"""A broker that confirms, refuses, or takes its time as a test says, and a shop that it is of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from afresh import App
from afresh.brokers import (
    Broker,
    BrokerTables,
    MemoryTransport,
    Outcome,
    OutgoingMessage,
    PublishResult,
    RelayOptions,
)
from afresh.brokers.tables import find_broker_tables
from afresh.brokers.transports.memory import MemoryBroker
from afresh.db import Database
from afresh.primitives.delays import RetryDelays
from tests.brokers.shop import QUICK, Shop, ShopBase


class ScriptedTransport(MemoryTransport):
    """Publishes as it is told.

    Args:
        seconds: that each message takes.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(broker=MemoryBroker())
        self.seconds = seconds
        self.is_away = False
        self.answer: Callable[[str], Outcome] = lambda note: Outcome.CONFIRMED
        """What becomes of a message, by the note of its order."""
        self.tried: list[str] = []
        self.confirmed: list[str] = []

    async def start(self) -> None:
        if self.is_away:
            raise ConnectionError("away")
        await super().start()

    async def publish(self, messages: Sequence[OutgoingMessage]) -> Sequence[PublishResult]:
        results = []
        for message in messages:
            if self.is_away:
                results.append(PublishResult(Outcome.UNAVAILABLE, "away"))
                continue
            note: str = msgspec.json.decode(message.body)["note"]
            self.tried.append(note)
            await asyncio.sleep(self.seconds)
            outcome = self.answer(note)
            if outcome is Outcome.CONFIRMED:
                self.confirmed.append(note)
            results.append(PublishResult(outcome, outcome.value))
        return results


@asynccontextmanager
async def shop_on(
    transport: ScriptedTransport, url: str = "sqlite+aiosqlite://", **relay: Any
) -> AsyncIterator[App]:
    """A shop whose orders go to a transport."""
    options: dict[str, Any] = {"poll": 0.05, "retries": QUICK, "pauses": RetryDelays.fixed(0.02)}
    app = App(
        database=Database(url, metadata=ShopBase.metadata, create_tables=True),
        broker=Broker(transport, source="/tests/shop", relay=RelayOptions(**options | relay)),
    )
    app.add(Shop(app.database), is_served=False)
    async with app:
        yield app


def tables_of(app: App) -> BrokerTables:
    """The tables of its outbox, leases and inbox."""
    tables = find_broker_tables(app.database.metadata)
    assert tables is not None
    return tables


async def until(condition: Callable[[], object], within: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)
