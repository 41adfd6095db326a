"""What transports have in common: order while publishing, who is subscribed, and how that is.

A transport of one broker says how a message is sent, and how messages are fetched and settled.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from afresh.errors import InvalidStateError
from afresh.primitives.clock import current_clock
from afresh.primitives.tasks import start_background

from ..lanes import Lanes
from ..transport import (
    CONFIRMED,
    Capabilities,
    Handler,
    Outcome,
    OutgoingMessage,
    PublishResult,
    Subscribed,
    Subscription,
    Transport,
)

__all__ = ["BaseSubscribed", "BaseTransport", "end"]

_log = logging.getLogger("afresh.brokers")


class BaseTransport(Transport):
    """A transport that knows who is subscribed, and publishes messages of a key in turn."""

    title: ClassVar[str]
    """What the broker is called in messages to people."""

    def __init__(self, capabilities: Capabilities) -> None:
        self.capabilities: Capabilities = capabilities
        self._subscribed: set[BaseSubscribed[Any]] = set()

    @property
    @abstractmethod
    def _is_started(self) -> bool:
        """Whether it was started, and not closed since."""

    @property
    @abstractmethod
    def _is_connected(self) -> bool:
        """Whether the broker is there, as far as is known."""

    @property
    def _may_publish(self) -> bool:
        return self._is_connected

    @property
    def _absence(self) -> str | None:
        """Why nothing goes out or comes in."""
        return None if self._is_connected else f"{self.title} is not connected."

    def health(self) -> dict[str, Any]:
        return {"connected": self._is_connected, "error": self._absence}

    # -- publishing

    async def publish(self, messages: Sequence[OutgoingMessage]) -> Sequence[PublishResult]:
        if not self._may_publish:
            gone = PublishResult(Outcome.UNAVAILABLE, f"{self.title} is not connected.")
            return [gone] * len(messages)
        limit = self.capabilities.max_bytes
        if all(len(each.body) <= limit for each in messages):
            return await self._publish(messages)
        published = iter(
            await self._publish([each for each in messages if len(each.body) <= limit])
        )
        return [
            next(published)
            if len(each.body) <= limit
            else PublishResult(
                Outcome.PERMANENT, f"{len(each.body):,} bytes are more than {limit:,}."
            )
            for each in messages
        ]

    async def _publish(self, messages: Sequence[OutgoingMessage]) -> Sequence[PublishResult]:
        """Publish side by side, but each of a key when those before it are done with."""
        if len(messages) == 1:
            return [await self._publish_one(messages[0])]
        chains: dict[Any, list[int]] = {}
        for number, message in enumerate(messages):
            key = number if message.key is None else (message.destination, message.key)
            chains.setdefault(key, []).append(number)
        results: list[PublishResult] = [CONFIRMED] * len(messages)

        async def follow(chain: list[int]) -> None:
            for number in chain:
                results[number] = await self._publish_one(messages[number])

        await asyncio.gather(*map(follow, chains.values()))
        return results

    async def _publish_one(self, message: OutgoingMessage) -> PublishResult:
        """Publish a message; the transport overrides either this or `_publish`."""
        raise NotImplementedError

    # -- consuming

    async def subscribe(self, subscription: Subscription, handler: Handler) -> Subscribed:
        if not self._is_started:
            raise InvalidStateError("Start the transport before you subscribe.")
        subscribed = self._make_subscribed(subscription, handler)
        self._subscribed.add(subscribed)
        try:
            await subscribed.start()
        except BaseException as error:
            await subscribed.aclose(0)
            if not isinstance(error, Exception):
                raise
            raise ConnectionError(f"{self.title} refuses the subscription: {error}") from error
        return subscribed

    @abstractmethod
    def _make_subscribed(
        self, subscription: Subscription, handler: Handler
    ) -> BaseSubscribed[Any]: ...

    def _tell_reconnected(self, *_: object) -> None:
        """Tell all subscriptions that they are there again."""
        for subscribed in list(self._subscribed):
            subscribed.tell_reconnected()

    async def _close_subscribed(self) -> None:
        """End the subscriptions that nobody has closed; their messages come again."""
        await asyncio.gather(*(each.aclose(0) for each in list(self._subscribed)))

    def __repr__(self) -> str:
        state = "connected" if self._is_connected else "not connected"
        return f"<{type(self).__name__}, {state}>"


AnyTransport = TypeVar("AnyTransport", bound=BaseTransport)


class BaseSubscribed(Subscribed, Generic[AnyTransport]):
    """A subscription that hands what it fetches to lanes."""

    def __init__(
        self, transport: AnyTransport, subscription: Subscription, handler: Handler
    ) -> None:
        self._transport = transport
        self._subscription = subscription
        self._lanes = Lanes(subscription, handler)
        self._later: set[asyncio.Task[None]] = set()
        self._error: str | None = None
        self._is_closing = False

    @property
    def _title(self) -> str:
        """What its tasks are called."""
        return f"{self._subscription.group} at {self._transport.title}"

    @abstractmethod
    async def start(self) -> None:
        """Begin to fetch; if it fails, `_close` clears up."""

    @abstractmethod
    async def _close(self, drain: float) -> None:
        """Fetch no more, close the lanes, and let go of the rest; however far `start` came."""

    def tell_reconnected(self) -> None:
        """Say that the subscription is there again."""
        if self._subscription.on_connected is None:
            return
        try:
            self._subscription.on_connected()
        except Exception:
            _log.exception("on_connected of %s failed.", self._title)

    def _wait(self, delay: float, hand_over: Callable[[], Awaitable[None]]) -> None:
        """Hand a message over again after a while; `_close` ends that by `self._later`."""

        async def wait() -> None:
            await current_clock().sleep(delay)
            await hand_over()

        task = start_background(wait(), name=f"retry of {self._title}")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def lag(self) -> int | None:
        if self._subscription.mode == "group":
            return await self._transport.lag(self._subscription)
        return await self._own_lag()

    async def _own_lag(self) -> int | None:
        """How many messages wait for a broadcast."""
        return None

    async def aclose(self, drain: float = 30.0) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._transport._subscribed.discard(self)
        await self._close(drain)

    def health(self) -> dict[str, Any]:
        return {
            "in_flight": self._lanes.in_flight,
            "error": self._error or self._transport._absence,
        }


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they are gone."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
