"""A worker process for tests with brokers: an app that sends letters, or one that receives them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Literal

import msgspec

from afresh import App
from afresh.brokers import Broker, ConsumerOptions, IncomingMessage, RelayOptions, event
from afresh.db import Database
from afresh.primitives.delays import RetryDelays

from .letters import Base, LetterSent, Listener, Reader, Send, Sender
from .message_faults import install_message_faults
from .pipes import PipeWorker, serve


class Setup(msgspec.Struct):
    """How a process is set up.

    Args:
        database: the URL.
        broker: the address.
        destination: where letters go.
        role: whether it sends letters, receives them with the others, or hears of all.
        relay: `RelayOptions`, as far as they differ from the defaults; all pauses are fixed.
        consumer: `ConsumerOptions`, likewise.
        seconds: how long it takes to receive a letter.
    """

    database: str
    broker: str
    destination: str
    role: Literal["sender", "reader", "listener"]
    relay: dict[str, Any] = {}
    consumer: dict[str, Any] = {}
    seconds: float = 0


class Messenger(PipeWorker):
    """The app of this process, and what can be asked of it."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        event("letters.sent", destination=setup.destination)(LetterSent)
        self.app = App(
            database=Database(setup.database, metadata=Base.metadata),
            broker=Broker(
                setup.broker,
                source=f"/{setup.role}",
                relay=RelayOptions(**_with_pauses(setup.relay)),
                consumer=ConsumerOptions(**_with_pauses(setup.consumer)),
            ),
        )
        match setup.role:
            case "sender":
                self.app.add(Sender(self.app.database), is_served=False)
            case "reader":
                self.reader = Reader(self.app.database, setup.seconds)
                self.app.add(self.reader, is_served=False)
            case "listener":
                self.listener = self.app.add(Listener(), is_served=False)
        install_message_faults(self.faults)

    async def send(self, command: dict[str, Any]) -> int:
        """Send letters; see `Send`."""
        return await self.app.call(Send(**command))

    async def send_many(self, writers: list[str], concurrency: int) -> None:
        """Send a letter of each writer, each on its own."""
        left = iter(writers)

        async def work() -> None:
            for writer in left:
                await self.app.call(Send([writer]))

        await asyncio.gather(*(work() for _ in range(concurrency)))

    async def count(self, writer: str) -> int:
        """How many letters of a writer were received, through the cache."""
        return await self.reader.count(writer)

    async def follow_count(self, writer: str, count: int) -> None:
        """Wait until it is so many, by nothing but the result going stale."""
        async for each in (await self.reader.count.capture(writer)).changes():
            if each.value >= count:
                return

    async def heard(self, writer: str) -> int:
        """The number of the letter that was heard of last, through the cache."""
        return await self.listener.heard(writer)

    async def follow_heard(self, writer: str, number: int) -> None:
        """Wait until it is this one, by nothing but the result going stale."""
        async for each in (await self.listener.heard.capture(writer)).changes():
            if each.value >= number:
                return

    async def when_stale(self, writer: str) -> None:
        """Wait until what was heard last goes stale, whatever for."""
        await (await self.listener.heard.capture(writer)).when_invalidated()

    async def deliver(self, message: dict[str, Any]) -> str:
        """Have a message handled as if the broker had delivered it; returns what becomes of it."""
        (consumer,) = self.app.broker._consumers.values()
        incoming = msgspec.convert(message, IncomingMessage)
        return type(await consumer.handle(incoming)).__name__


def _with_pauses(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: RetryDelays.fixed(value) if name in {"retries", "pauses"} else value
        for name, value in options.items()
    }


async def main(text: bytes) -> None:
    setup = msgspec.json.decode(text, type=Setup)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    await serve(Messenger(setup))
