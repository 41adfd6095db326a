"""Levers that break things in messages: what nobody can read, what comes twice, who fails."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import uuid4

from afresh import command_handler, compute_method
from afresh.brokers import (
    Ack,
    DeadMessage,
    Disposition,
    IncomingMessage,
    OutgoingMessage,
    Subscription,
    event_type_of,
    open_transport,
)

from ..events import LISTENERS, OrderPlaced
from .board import LiveBoard
from .contracts import (
    BROKER,
    BackstageError,
    DeadLetterView,
    Drop,
    LetFail,
    Mischief,
    Processes,
    Requeue,
    SendDuplicate,
    SendPoison,
    SendUnknown,
)

Settle: TypeAlias = Callable[[Subscription, Sequence[str] | None], Awaitable[int]]

_SHOWN = 300
_RETRY = 0.5
_PLACED = event_type_of(OrderPlaced)
_LISTENER = Subscription(_PLACED.channel, "backstage", "broadcast", workers=1)


class BrokerMischief(Mischief):
    """Sends to the broker what should not be there, and looks at what was put aside.

    Args:
        broker: its address.
        board: is told what was sent.
        processes: tell whether the broker is there.
    """

    def __init__(self, broker: str, board: LiveBoard, processes: Processes) -> None:
        self._transport = open_transport(broker)
        self._board = board
        self._processes = processes
        self.failing: set[str] = set()
        """The departments that are told to fail."""
        self._last: IncomingMessage | None = None

    # -- what is read

    @compute_method
    async def is_failing(self, department: str) -> bool:
        return department in self.failing

    @compute_method(auto_invalidate=5)
    async def dead(self, department: str) -> tuple[DeadLetterView, ...]:
        await self._deaths(department)
        if BROKER in await self._processes.names():
            await self._processes.state(BROKER)
        found: list[DeadLetterView] = []
        with suppress(Exception):  # the broker is away
            for subscription in subscriptions(department):
                async with asyncio.timeout(3):
                    dead = await self._transport.dead(subscription)
                found += [view(subscription.destination, each) for each in dead]
        return tuple(sorted(found, key=lambda each: (each.died_at is None, each.died_at)))

    @compute_method(consolidate=0)
    async def _deaths(self, department: str) -> int:
        """Goes stale when something died, and not with all that is reported."""
        return (await self._board.counts(department)).dead

    # -- levers

    @command_handler
    async def send_poison(self, command: SendPoison) -> None:
        await self._send(_PLACED.type, b'{"order_id": 13, "lines": [', "a poison message")

    @command_handler
    async def send_unknown(self, command: SendUnknown) -> None:
        body = b'{"order_id": 13, "paper": "golden"}'
        await self._send("shop.gift_wrapped.v1", body, "an event that nobody knows")

    @command_handler
    async def send_duplicate(self, command: SendDuplicate) -> None:
        last = self._last
        if last is None:
            raise BackstageError("Order something first: the last order is what is sent again")
        message = self._message(_PLACED.type, last.body)
        # The broker must not know it again, or no department would ever see it.
        message = replace(message, attributes=last.attributes, key=last.key)
        await self._publish(message, "the last order once more")

    @command_handler
    async def let_fail(self, command: LetFail) -> None:
        if command.department not in LISTENERS:
            raise BackstageError(f"There is no department {command.department!r}")
        change = self.failing.add if command.is_failing else self.failing.discard
        change(command.department)
        self.is_failing.invalidate(command.department)
        words = "fails with everything" if command.is_failing else "works again"
        self._board.tell("process", f"{command.department.capitalize()} {words}")

    @command_handler
    async def requeue(self, command: Requeue) -> int:
        return await self._settle(command.department, command.ids, self._transport.requeue_dead)

    @command_handler
    async def drop(self, command: Drop) -> int:
        return await self._settle(command.department, command.ids, self._transport.drop_dead)

    async def _settle(self, department: str, ids: tuple[str, ...] | None, settle: Settle) -> int:
        by_channel: dict[str, list[str]] = defaultdict(list)
        for each in ids or ():
            channel, _, number = each.partition(":")
            by_channel[channel].append(number)
        subscribed = subscriptions(department)
        count = 0
        try:
            for subscription in subscribed:
                wanted = None if ids is None else by_channel[subscription.destination]
                if wanted != []:
                    async with asyncio.timeout(10):
                        count += await settle(subscription, wanted)
        except Exception as error:
            raise BackstageError("The broker is away: start it first") from error
        finally:
            self.dead.invalidate(department)
        return count

    async def _send(self, kind: str, body: bytes, words: str) -> None:
        await self._publish(self._message(kind, body), words)

    def _message(self, kind: str, body: bytes) -> OutgoingMessage:
        name = uuid4().hex
        attributes = {
            "specversion": "1.0",
            "id": name,
            "source": "/backstage",
            "type": kind,
            "time": datetime.now(UTC).isoformat(),
        }
        return OutgoingMessage(name, _PLACED.channel, kind, body, attributes=attributes)

    async def _publish(self, message: OutgoingMessage, words: str) -> None:
        (result,) = await self._transport.publish([message])
        if not result.is_confirmed:
            raise BackstageError("The broker is away: start it first")
        self._board.tell("publish", words[0].upper() + words[1:])

    # -- life

    @asynccontextmanager
    async def connected(self, *, is_new: bool) -> AsyncIterator[None]:
        """Be connected to the broker, and remember the last order that passes.

        Args:
            is_new: whether the broker knows of no groups yet: departments are made known to it, so
                that it keeps for them what is published while they start.
        """
        if is_new:
            await self._transport.start()
            for department in LISTENERS:
                for subscription in subscriptions(department):
                    made = await self._transport.subscribe(subscription, _take)
                    await made.aclose()
        listening = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.wait([listening])
            await self._transport.aclose()

    async def _listen(self) -> None:
        subscribed = None
        try:
            while subscribed is None:
                try:
                    await self._transport.start()
                    subscribed = await self._transport.subscribe(_LISTENER, self._remember)
                except ConnectionError:
                    await asyncio.sleep(_RETRY)
            await asyncio.Event().wait()
        finally:
            if subscribed is not None:
                await subscribed.aclose(1)

    async def _remember(self, message: IncomingMessage) -> Disposition:
        if message.attributes.get("source") == "/shop" and (
            message.attributes.get("type") == _PLACED.type
        ):
            self._last = message
        return Ack()


def subscriptions(department: str) -> list[Subscription]:
    """What a department subscribes to."""
    try:
        return [Subscription(channel, department) for channel in LISTENERS[department]]
    except KeyError:
        raise BackstageError(f"There is no department {department!r}") from None


def view(channel: str, dead: DeadMessage) -> DeadLetterView:
    """What people are shown of a dead message."""
    died_at = datetime.fromtimestamp(dead.died_at, UTC) if dead.died_at is not None else None
    return DeadLetterView(
        f"{channel}:{dead.id}",
        channel,
        dead.message.attributes.get("type", ""),
        dead.reason,
        dead.error,
        dead.message.body[:_SHOWN].decode(errors="replace"),
        died_at,
    )


async def _take(message: IncomingMessage) -> Disposition:
    """The broker is new, and nothing was published yet."""
    return Ack()
