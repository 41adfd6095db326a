"""A broker within the process: for tests, and for programs that need no other.

Messages live as long as the process does. All transports of one name share a broker, as separate
services that connect to one would.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from afresh.primitives.clock import current_clock
from afresh.primitives.tasks import start_background

from ..lanes import Settle
from ..transport import (
    CONFIRMED,
    Ack,
    Capabilities,
    DeadLetter,
    DeadMessage,
    Disposition,
    Handler,
    IncomingMessage,
    Outcome,
    OutgoingMessage,
    PublishResult,
    Retry,
    Subscription,
)
from .base import BaseSubscribed, BaseTransport, end

__all__ = ["MemoryBroker", "MemoryTransport"]

MAX_BYTES = 1_048_576


class MemoryTransport(BaseTransport):
    """A connection to a broker within the process.

    Args:
        url: ``memory://``, or ``memory://name`` for a broker of that name, shared by all
            transports of the process.
        broker: the broker, in place of one that has a name.
        max_bytes: the largest body that is taken.

    Example:
        ```python
        app = App(database=…, broker="memory://")
        ```
    """

    title = "The broker in memory"

    def __init__(
        self,
        url: str = "memory://",
        *,
        broker: MemoryBroker | None = None,
        max_bytes: float = MAX_BYTES,
    ) -> None:
        super().__init__(
            Capabilities(
                name="memory",
                prefix="ce-",
                is_durable=False,
                ordered_keys=True,
                deduplicates=0,
                delays_retries=True,
                has_dead_letters=True,
                max_bytes=max_bytes,
            )
        )
        self.broker: MemoryBroker = broker or _brokers.setdefault(
            url.partition("://")[2], MemoryBroker()
        )
        self._is_started_here = False

    @property
    def _is_started(self) -> bool:
        return self._is_started_here

    @property
    def _is_connected(self) -> bool:
        return self._is_started_here and not self.broker.is_stopped

    async def start(self) -> None:
        if self.broker.is_stopped:
            raise ConnectionError("The broker in memory is stopped.")
        self._is_started_here = True
        self.broker.clients.add(self)

    async def _publish(self, messages: Sequence[OutgoingMessage]) -> Sequence[PublishResult]:
        results = [self.broker.take(message) for message in messages]
        await asyncio.sleep(0)
        return results

    def _make_subscribed(self, subscription: Subscription, handler: Handler) -> _Subscribed:
        return _Subscribed(self, subscription, handler)

    async def lag(self, subscription: Subscription) -> int | None:
        group = self.broker.find(subscription)
        return None if group is None else group.waiting

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        group = self.broker.find(subscription)
        return [] if group is None else list(itertools.islice(group.dead.values(), limit))

    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        return self._each_dead(
            subscription,
            ids,
            lambda group, dead: group.put(replace(dead.message, deliveries=0)),
        )

    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        return self._each_dead(subscription, ids, lambda group, dead: None)

    def _each_dead(
        self,
        subscription: Subscription,
        ids: Sequence[str] | None,
        do: Callable[[_Group, DeadMessage], None],
    ) -> int:
        group = self.broker.find(subscription)
        if group is None:
            return 0
        wanted = list(group.dead) if ids is None else [each for each in ids if each in group.dead]
        for each in wanted:
            do(group, group.dead.pop(each))
        return len(wanted)

    async def aclose(self) -> None:
        await self._close_subscribed()
        self._is_started_here = False
        self.broker.clients.discard(self)

    def __repr__(self) -> str:
        return f"<MemoryTransport to {self.broker!r}>"


class MemoryBroker:
    """What transports in memory connect to.

    Args:
        most: how many messages a group keeps; more are refused until some are settled.
    """

    def __init__(self, *, most: float = math.inf) -> None:
        self.clients: set[MemoryTransport] = set()
        """Who is connected."""
        self._most = most
        self.is_stopped: bool = False
        """Whether nothing can reach it; see `stop`."""
        self._groups: dict[tuple[str, str], _Group] = {}
        self._hosts: dict[int, _Group] = {}

    def stop(self) -> None:
        """Be out of reach, as a broker that is down; what it holds stays."""
        self.is_stopped = True

    def resume(self) -> None:
        """Be in reach again."""
        self.is_stopped = False
        for group in (*self._groups.values(), *self._hosts.values()):
            group.ready.set()
        for client in list(self.clients):
            client._tell_reconnected()

    def take(self, message: OutgoingMessage) -> PublishResult:
        """Hand a message to all groups that there are, unless it is too much for one of them."""
        groups = [
            group
            for group in (*self._groups.values(), *self._hosts.values())
            if group.destination == message.destination
            and (not group.types or message.type in group.types)
        ]
        if any(group.waiting >= self._most for group in groups):
            return PublishResult(Outcome.TRANSIENT, f"A group has {self._most:g} messages.")
        incoming = IncomingMessage(
            message.destination,
            message.body,
            message.content_type,
            dict(message.attributes),
            dict(message.headers),
            message.key,
            deliveries=0,
        )
        for group in groups:
            group.put(incoming)
        return CONFIRMED

    def find(self, subscription: Subscription) -> _Group | None:
        """Return the messages of a group, if somebody has subscribed for it."""
        return self._groups.get((subscription.destination, subscription.group))

    def group_of(self, subscription: Subscription) -> _Group:
        """Return the messages of a group; a new one for a broadcast."""
        if subscription.mode == "broadcast":
            group = _Group(subscription)
            self._hosts[id(group)] = group
            return group
        found = self.find(subscription)
        if found is None:
            found = _Group(subscription)
            self._groups[subscription.destination, subscription.group] = found
        found.types = subscription.types
        return found

    def forget(self, group: _Group) -> None:
        """Drop what a broadcast has not handled: nobody else gets it."""
        self._hosts.pop(id(group), None)

    def __repr__(self) -> str:
        return f"<MemoryBroker of {len(self._groups)} groups>"


@dataclass(slots=True)
class _Waiting:
    message: IncomingMessage
    due: float


class _Group:
    """The messages of one group that are not settled."""

    def __init__(self, subscription: Subscription) -> None:
        self.destination: str = subscription.destination
        self.types: frozenset[str] = subscription.types
        self.messages: deque[IncomingMessage] = deque()
        self.later: list[_Waiting] = []
        self.dead: dict[str, DeadMessage] = {}
        self.ready: asyncio.Event = asyncio.Event()
        self.readers: list[_Subscribed] = []

    @property
    def waiting(self) -> int:
        """How many messages nobody was handed yet, or is to be handed again."""
        return len(self.messages) + len(self.later)

    def put(self, message: IncomingMessage) -> None:
        self.messages.append(message)
        self.ready.set()

    def put_back(self, message: IncomingMessage, delay: float) -> None:
        if delay > 0:
            self.later.append(_Waiting(message, current_clock().now() + delay))
            self.ready.set()
        else:
            self.messages.appendleft(message)
            self.ready.set()

    def next_due(self) -> float | None:
        """Make ready what is due; returns the seconds until more is."""
        now = current_clock().now()
        due = [each for each in self.later if each.due <= now]
        if due:
            self.later = [each for each in self.later if each.due > now]
            self.messages.extendleft(each.message for each in reversed(due))
        return min((each.due - now for each in self.later), default=None)


class _Subscribed(BaseSubscribed[MemoryTransport]):
    def __init__(
        self, transport: MemoryTransport, subscription: Subscription, handler: Handler
    ) -> None:
        super().__init__(transport, subscription, handler)
        self._broker = transport.broker
        self._group = self._broker.group_of(subscription)
        self._held: dict[int, IncomingMessage] = {}
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._group.readers.append(self)
        self._tasks = [start_background(self._fetch(), name=f"subscription of {self._title}")]

    async def _fetch(self) -> None:
        group = self._group
        while True:
            group.ready.clear()
            pause = group.next_due()
            while group.messages and self._is_reading:
                message = group.messages.popleft()
                message = replace(message, deliveries=message.deliveries + 1)
                number = next(self._numbers)
                self._held[number] = message
                await self._lanes.put(message, self._settling(number))
            await _wait(group.ready, pause)

    @property
    def _is_reading(self) -> bool:
        # Where order matters, one of the group reads at a time.
        is_next = not self._subscription.ordered or self._group.readers[0] is self
        return is_next and not self._broker.is_stopped

    def _settling(self, number: int) -> Settle:
        async def settle(disposition: Disposition) -> None:
            message = self._held.pop(number)
            match disposition:
                case Ack():
                    return
                case Retry(delay):
                    self._group.put_back(message, delay)
                case DeadLetter(reason, error):
                    name = f"{time.time_ns()}-{number}"
                    self._group.dead[name] = DeadMessage(name, message, reason, error, time.time())

        return settle

    async def _close(self, drain: float) -> None:
        await end(*self._tasks)
        await self._lanes.aclose(drain)
        if self._subscription.mode == "broadcast":
            self._broker.forget(self._group)
        for message in reversed(self._held.values()):
            self._group.put_back(message, 0)
        self._held.clear()
        if self in self._group.readers:
            self._group.readers.remove(self)
        self._group.ready.set()

    async def _own_lag(self) -> int | None:
        return self._group.waiting


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    if seconds is None:
        await event.wait()
        return
    timer = current_clock().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


_brokers: dict[str, MemoryBroker] = {}
