"""A subscription at Azure Service Bus: what is received, under which lock."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver

from afresh.primitives.tasks import start_background

from ..lanes import Settle
from ..transport import Ack, DeadLetter, Disposition, Handler, IncomingMessage, Retry, Subscription
from .base import BaseSubscribed, end
from .headers import DELIVERIES, GROUP
from .servicebus_messages import (
    close,
    copy_of,
    deliveries_of,
    incoming,
    name_of,
    remaining,
    texts_of,
)

if TYPE_CHECKING:
    from .servicebus import ServiceBusTransport

__all__ = ["ServiceBusSubscribed"]

_WAIT_SECONDS = 0.2
_LOOK_SECONDS = 0.5
_SETTLE_SECONDS = 10.0
_MOST_TEXT = 4_000


@dataclass(slots=True)
class _Held:
    raw: ServiceBusReceivedMessage
    receiver: ServiceBusReceiver
    renew_at: float


class ServiceBusSubscribed(BaseSubscribed["ServiceBusTransport"]):
    """Receives messages under a lock, and renews it while they are handled."""

    def __init__(
        self, transport: ServiceBusTransport, subscription: Subscription, handler: Handler
    ) -> None:
        super().__init__(transport, subscription, handler)
        self._group = name_of(subscription.group)
        self._name = self._group
        if subscription.mode == "broadcast":
            self._name = f"{self._group[:36]}-{secrets.token_hex(6)}"
        self._receiver: ServiceBusReceiver | None = None
        # Of two that read from a link at once, one gets the answer that the other waits for.
        self._reading = asyncio.Lock()
        self._held: dict[int, _Held] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._open()
        self._tasks = [
            start_background(self._receive(), name=f"subscription of {self._title}"),
            start_background(self._renew(), name=f"renewal of {self._title}"),
        ]

    async def _open(self) -> ServiceBusReceiver:
        subscription = self._subscription
        await self._transport._need_subscription(subscription, self._name)
        receiver = self._transport._started.get_subscription_receiver(
            subscription.destination, self._name, prefetch_count=subscription.workers
        )
        try:
            await receiver.__aenter__()
        except BaseException:
            await close(receiver)
            raise
        self._receiver = receiver
        self._transport._note(None)
        return receiver

    async def _receive(self) -> None:
        while not self._is_closing:
            receiver = self._receiver
            try:
                if receiver is None:
                    receiver = await self._open_again()
                async with self._reading:
                    found = await receiver.receive_messages(1, max_wait_time=_WAIT_SECONDS)
                for raw in found:
                    await self._take(raw, receiver)
            except Exception as error:
                self._transport._note(error)
                # The topic may have been deleted meanwhile, with all its subscriptions.
                self._transport._topics.discard(self._subscription.destination)
                self._error = f"{type(error).__name__}: {error}"
                if receiver is not None:
                    self._receiver = None
                    await close(receiver)
                await asyncio.sleep(_LOOK_SECONDS)

    async def _open_again(self) -> ServiceBusReceiver:
        receiver = await self._open()
        self._error = None
        self.tell_reconnected()
        return receiver

    async def _take(self, raw: ServiceBusReceivedMessage, receiver: ServiceBusReceiver) -> None:
        seconds = remaining(raw)
        if seconds <= 0:
            return  # it waited here for too long, and comes again
        if texts_of(raw).get(GROUP, self._group) != self._group:
            async with self._reading:
                await receiver.complete_message(raw)  # a copy that is for another group
            return
        held = _Held(raw, receiver, time.monotonic() + seconds / 2)
        self._held[id(held)] = held
        message = incoming(raw, self._subscription)
        await self._lanes.put(message, self._settling(held, message))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            for held in [each for each in self._held.values() if each.renew_at <= now]:
                held.renew_at = now + _LOOK_SECONDS
                if held.receiver is self._receiver:
                    # It is tried again, or the message comes again.
                    with contextlib.suppress(Exception):
                        async with self._reading:
                            await held.receiver.renew_message_lock(
                                held.raw, timeout=_SETTLE_SECONDS
                            )
                        held.renew_at = time.monotonic() + remaining(held.raw) / 2

    def _settling(self, held: _Held, message: IncomingMessage) -> Settle:
        async def settle(disposition: Disposition) -> None:
            if isinstance(disposition, Retry) and self._subscription.mode == "broadcast":
                again = replace(message, deliveries=message.deliveries + 1)
                self._wait(
                    disposition.delay, lambda: self._lanes.put(again, self._settling(held, again))
                )
                return
            del self._held[id(held)]
            raw, receiver = held.raw, held.receiver
            if receiver is not self._receiver:
                raise ConnectionError("the connection was lost that it was received by")
            match disposition:
                case Retry(delay) if delay > 0:
                    await self._send_later(raw, delay)
                    disposition = Ack()
                case DeadLetter() if self._subscription.mode == "broadcast":
                    disposition = Ack()
            async with self._reading:
                match disposition:
                    case Ack():
                        await receiver.complete_message(raw)
                    case Retry():
                        await receiver.abandon_message(raw)
                    case DeadLetter(reason, error):
                        await receiver.dead_letter_message(
                            raw, reason=reason[:_MOST_TEXT], error_description=error[:_MOST_TEXT]
                        )

        return settle

    async def _send_later(self, raw: ServiceBusReceivedMessage, delay: float) -> None:
        copy = copy_of(raw, {GROUP: self._group, DELIVERIES: str(deliveries_of(raw))})
        copy.scheduled_enqueue_time_utc = datetime.now(UTC) + timedelta(seconds=delay)
        await self._transport._send_again(self._subscription.destination, [copy])

    async def _close(self, drain: float) -> None:
        await self._lanes.aclose(drain)
        await end(*self._later)
        # Reading is not cancelled: half a frame would be lost, and what is held settled no more.
        if self._tasks:
            await asyncio.wait(self._tasks[:1])
        await end(*self._tasks[1:])
        for held in self._held.values():
            if held.receiver is self._receiver:
                with contextlib.suppress(Exception):  # the lock is lost: it comes again
                    await held.receiver.abandon_message(held.raw)
        self._held.clear()
        self._transport._leave(self._detach())

    async def _detach(self) -> None:
        """Give back what was fetched ahead; the SDK takes a second for that."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            await close(receiver)
        if self._subscription.mode == "broadcast":
            await self._transport._forget(self._subscription.destination, self._name)

    async def _own_lag(self) -> int | None:
        return await self._transport._waiting(self._subscription.destination, self._name)
