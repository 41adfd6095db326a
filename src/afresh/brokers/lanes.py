"""Handles messages side by side, and those of one key one after another."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

from afresh.primitives.clock import current_clock
from afresh.primitives.tasks import start_background

from .transport import Ack, DeadLetter, Disposition, Handler, IncomingMessage, Retry, Subscription

__all__ = ["Lanes", "Settle"]

_log = logging.getLogger("afresh.brokers")

Settle: TypeAlias = Callable[[Disposition], Awaitable[None]]
"""Tells the broker what becomes of a message."""

HELD_SECONDS = 10.0
"""An ordered message that is handled again within this time stays here meanwhile."""


class Lanes:
    """Hands messages to a function, so many at once, each lane one after another.

    Messages of one key go into one lane; those without a key into whichever is shortest.

    Args:
        subscription: how many at once, and whether order matters.
        handler: handles a message.
    """

    def __init__(self, subscription: Subscription, handler: Handler) -> None:
        self.in_flight: int = 0
        """How many messages are here, handled or waiting."""
        self._subscription = subscription
        self._handler = handler
        self._queues: list[asyncio.Queue[tuple[IncomingMessage, Settle]]] = [
            asyncio.Queue() for _ in range(subscription.workers)
        ]
        self._room = asyncio.Semaphore(subscription.fetched)
        self._tasks = [
            start_background(self._work(queue), name=f"lane of {subscription.group}")
            for queue in self._queues
        ]
        self._is_closing = False

    async def put(self, message: IncomingMessage, settle: Settle) -> None:
        """Take a message; waits as long as there are too many.

        Args:
            message: to be handled.
            settle: called with what becomes of it, once. Where it is not called, as this was closed
                first, the broker hands the message over again by itself.
        """
        await self._room.acquire()
        if self._is_closing:
            self._room.release()
            return
        self.in_flight += 1
        self._queue_of(message.key).put_nowait((message, settle))

    def _queue_of(self, key: str | None) -> asyncio.Queue[tuple[IncomingMessage, Settle]]:
        if key is None:
            return min(self._queues, key=asyncio.Queue.qsize)
        return self._queues[zlib.crc32(key.encode()) % len(self._queues)]

    async def _work(self, queue: asyncio.Queue[tuple[IncomingMessage, Settle]]) -> None:
        while True:
            message, settle = await queue.get()
            try:
                if not self._is_closing:
                    await self._handle(message, settle)
            finally:
                self.in_flight -= 1
                self._room.release()
                queue.task_done()

    async def _handle(self, message: IncomingMessage, settle: Settle) -> None:
        disposition: Any
        while True:
            try:
                disposition = await self._handler(message)
            except Exception:
                _log.exception("The handler of %r failed.", self._subscription.group)
                disposition = Retry(1.0)
            if not isinstance(disposition, Ack | Retry | DeadLetter):
                _log.error(
                    "The handler returned %r, which says nothing of the message.", disposition
                )
                disposition = Retry(1.0)
            if not self._stays(message, disposition):
                break
            await current_clock().sleep(disposition.delay)
            message = replace(message, deliveries=message.deliveries + 1)
        if self._is_closing and self._is_held(message, disposition):
            return  # it goes back to its place, before the later ones of its key
        try:
            await settle(disposition)
        except Exception as error:
            # It was not settled, so it comes again.
            _log.warning("%r could not be settled: %s", disposition, error)

    def _stays(self, message: IncomingMessage, disposition: Disposition) -> bool:
        return not self._is_closing and self._is_held(message, disposition)

    def _is_held(self, message: IncomingMessage, disposition: Disposition) -> bool:
        """Whether later messages of its key wait until it is handled again."""
        return (
            isinstance(disposition, Retry)
            and self._subscription.ordered
            and message.key is not None
            and disposition.delay <= HELD_SECONDS
        )

    async def aclose(self, drain: float) -> None:
        """Let handlers end, and leave the messages that wait.

        Args:
            drain: seconds that they get before they are cancelled.
        """
        self._is_closing = True
        busy = [asyncio.ensure_future(queue.join()) for queue in self._queues]
        try:
            async with asyncio.timeout(drain):
                await asyncio.gather(*busy)
        except TimeoutError:
            if self.in_flight:
                _log.warning("%d handlers were cancelled, as they took too long.", self.in_flight)
        finally:
            for each in (*busy, *self._tasks):
                each.cancel()
            await asyncio.gather(*busy, *self._tasks, return_exceptions=True)
