"""`Broker`: what an app tells other services, and hears of them.

It puts the parts together: the outbox and its relay on one side, subscriptions and handlers on the
other, and the connection that both use. A broker that is away stops neither the app nor its
commands: messages wait in the outbox, and subscriptions are made when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from afresh.errors import DefinitionError, InvalidStateError
from afresh.graph.definition import TABLES
from afresh.operations import Operations
from afresh.operations.operation import Operation
from afresh.primitives.clock import current_clock
from afresh.primitives.handlers import Handlers
from afresh.primitives.tasks import start_background

from .consumer import Consumer, ConsumerOptions
from .dead import OutboxDesk
from .events import EventTypes
from .handlers import ServiceHandler, handlers_of
from .inbox import Inbox, InboxTrimmer, OutboxTrimmer
from .outbox import DatabaseOutbox
from .relay import Relay, RelayOptions
from .tables import BrokerTables, add_broker_tables, check_broker_tables, find_broker_tables
from .transport import DeadMessage, Subscribed, Subscription, Transport
from .transports.opening import open_transport
from .watching import HandledMessage, PublishedMessage

if TYPE_CHECKING:
    from afresh.db import Database
    from afresh.db.logs.worker import Worker

__all__ = ["Broker"]

_log = logging.getLogger("afresh.brokers")
_ASK_EVERY = 5.0


class Broker:
    """What an app tells other services, and hears of them.

    Args:
        address: of the message broker: ``amqp://``, ``kafka://``, ``nats://``, ``redis://``,
            ``servicebus://``, ``memory://``; or a transport.
        source: who the app is to others: a URI, such as "/shop".
        relay: how messages are published.
        consumer: how events of others are handled.

    Example:
        ```python
        app = App(
            database="postgresql+asyncpg://localhost/shop",
            broker=Broker("amqp://guest:guest@localhost", source="/shop"),
        )
        ```
    """

    def __init__(
        self,
        address: str | Transport,
        *,
        source: str = "/afresh",
        relay: RelayOptions | None = None,
        consumer: ConsumerOptions | None = None,
    ) -> None:
        self.transport: Transport = open_transport(address)
        self.source: str = source
        self.types: EventTypes = EventTypes()
        """The events that are handled here."""
        self._relay_options = relay or RelayOptions()
        self._consumer_options = consumer or ConsumerOptions()
        self._operations: Operations | None = None
        self._database: Database | None = None
        self._tables: BrokerTables | None = None
        self._handlers: list[ServiceHandler] = []
        self._consumers: dict[Subscription, Consumer] = {}
        self._subscribed: dict[Subscription, Subscribed] = {}
        self._lags: dict[Subscription, int | None] = {}
        self._relays: dict[str, Relay] = {}
        self._workers: list[Worker] = []
        self._connecting: asyncio.Task[None] | None = None
        self._error: str | None = None
        self._when_published: Handlers[PublishedMessage] = Handlers(_log)
        self._when_handled: Handlers[HandledMessage] = Handlers(_log)
        self._stop: Callable[[], None] | None = None

    # -- putting together

    def attach(self, operations: Operations, database: Database | None) -> None:
        """Belong to an app; the app does it.

        Args:
            operations: of the app.
            database: whose operations publish; None lets the app only listen.

        Raises:
            InvalidStateError: it belongs to another one.
        """
        if self._operations is not None:
            raise InvalidStateError(f"{self!r} belongs to another app; make one for each.")
        self._operations = operations
        self._database = database
        if database is not None:
            self._tables = find_broker_tables(database.metadata) or add_broker_tables(
                database.metadata, prefix=_prefix(database), schema=database.tables.events.schema
            )
            operations.outbox = DatabaseOutbox(
                self._tables.outbox,
                self.source,
                max_bytes=self.transport.capabilities.max_bytes,
            )

    def add(self, service: object, name: str) -> None:
        """Let a service handle the events that its methods are for; `App.add` does it.

        Args:
            service: the object.
            name: what it is called.

        Raises:
            DefinitionError: two classes of events have one name.
            InvalidStateError: the broker has begun to receive already.
        """
        found = list(handlers_of(service, name))
        if not found:
            return
        if self._operations is None:
            raise InvalidStateError(f"{self!r} belongs to no app: App(broker=…).")
        if self._consumers:
            raise InvalidStateError(
                f"{name} handles events, and the app has begun to receive them: add it before."
            )
        for handler in found:
            self.types.add(handler.kind.cls)
            self._operations.commander.add(handler.adapter, name=name)
        self._handlers += found

    def _subscriptions(self) -> dict[Subscription, list[ServiceHandler]]:
        options = self._consumer_options
        found: dict[tuple[str, str, str], list[ServiceHandler]] = {}
        for handler in self._handlers:
            key = handler.kind.channel, handler.group, handler.mode
            found.setdefault(key, []).append(handler)
        subscriptions: dict[Subscription, list[ServiceHandler]] = {}
        for (channel, group, _), handlers in found.items():
            workers = max(each.workers or options.workers for each in handlers)
            subscription = Subscription(
                channel,
                group,
                handlers[0].mode,
                workers,
                options.prefetch,
                frozenset(),
                all(each.ordered for each in handlers),
            )
            if handlers[0].mode == "broadcast":
                subscription = replace(subscription, on_connected=partial(_sweep, handlers))
            subscriptions[subscription] = handlers
        return subscriptions

    # -- life

    async def start(self) -> None:
        """Begin to publish and to receive; an app does it. Does not wait for the broker.

        Raises:
            SchemaError: the database lacks the tables of the outbox and the inbox.
        """
        operations, database = self._operations, self._database
        if operations is None:
            raise InvalidStateError(f"{self!r} belongs to no app: App(broker=…).")
        if self._connecting is not None:
            raise InvalidStateError(f"{self!r} was started already.")
        if database is not None and self._tables is not None:
            for name in list(database.shards):
                await check_broker_tables(database.shard(name).write, self._tables)
        for subscription, handlers in self._subscriptions().items():
            by_type: dict[str, list[ServiceHandler]] = {}
            for handler in handlers:
                by_type.setdefault(handler.kind.name, []).append(handler)
            inbox = None
            if database is not None and self._tables is not None and subscription.mode == "group":
                inbox = Inbox(database.shard(_first(database)), self._tables.inbox)
            self._consumers[subscription] = Consumer(
                operations.commander,
                self.types,
                by_type,
                subscription.group,
                self._consumer_options,
                inbox,
                self._when_handled,
            )
        if database is not None and self._tables is not None:
            for name in list(database.shards):
                shard = database.shard(name)
                relay = Relay(
                    shard,
                    self._tables,
                    self.transport,
                    host_id=operations.host_id,
                    signal=database.watcher.signal("outbox", name),
                    options=self._relay_options,
                    watchers=self._when_published,
                )
                self._relays[name] = relay
                self._workers += [
                    relay,
                    OutboxTrimmer(shard, self._tables, keep=relay.options.keep),
                    InboxTrimmer(shard, self._tables, keep=self._consumer_options.keep),
                ]
            self._stop = operations.completion.on_completed(self._tell)
        started = await self._connect()
        for worker in self._workers:
            await worker.start()
        self._connecting = start_background(
            self._keep_connecting(started), name=f"broker {self.transport.capabilities.name}"
        )

    async def _connect(self) -> bool:
        """Connect, and make the subscriptions that are missing; returns whether that worked."""
        try:
            await self.transport.start()
            for subscription, consumer in self._consumers.items():
                if subscription not in self._subscribed:
                    self._subscribed[subscription] = await self.transport.subscribe(
                        subscription, consumer.handle
                    )
        except Exception as error:
            if self._error is None:
                _log.warning("The broker can't be reached; it is tried again: %s", error)
            self._error = f"{type(error).__name__}: {error}"
            return False
        self._error = None
        return True

    async def _keep_connecting(self, is_connected: bool) -> None:
        """Connect, and look now and then how much waits for this app."""
        failures = 0
        while not is_connected:
            failures += 1
            await current_clock().sleep(self._relay_options.pauses[failures])
            is_connected = await self._connect()
        while self._consumers:
            for subscription, subscribed in list(self._subscribed.items()):
                self._lags[subscription] = await _lag_of(subscribed)
            await current_clock().sleep(_ASK_EVERY)

    def _tell(self, operation: Operation) -> None:
        """Wake up the relays of all hosts: something stands in the outbox."""
        if operation.whole.messages and operation.log is not None and self._database is not None:
            self._database.watcher.changed("outbox", operation.log[1])

    async def aclose(self) -> None:
        """Receive no more, let handlers end, publish no more, and disconnect."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        subscribed = list(self._subscribed.values())
        self._subscribed.clear()
        if subscribed:
            await asyncio.gather(
                *(each.aclose(self._consumer_options.drain) for each in subscribed),
                return_exceptions=True,
            )
        for worker in reversed(self._workers):
            await worker.aclose()
        self._workers.clear()
        await self.transport.aclose()

    # -- looking at it

    def on_published(self, handler: Callable[[PublishedMessage], object]) -> Callable[[], None]:
        """Have a function called with each message that is published from here, or refused.

        Returns:
            A function that ends it.

        Example:
            ```python
            stop = broker.on_published(lambda published: print(published.message.type))
            ```
        """
        return self._when_published.add(handler)

    def on_handled(self, handler: Callable[[HandledMessage], object]) -> Callable[[], None]:
        """Have a function called with each message that is delivered here, and what became of it.

        Returns:
            A function that ends it.

        Example:
            ```python
            stop = broker.on_handled(lambda handled: print(handled.outcome, handled.message.type))
            ```
        """
        return self._when_handled.add(handler)

    @property
    def shards(self) -> tuple[str, ...]:
        """The parts of the app's database, each of which has an outbox."""
        return () if self._database is None else tuple(self._database.shards)

    def outbox(self, shard: str = "") -> OutboxDesk:
        """Return what looks at the outbox of a shard, and decides about its dead messages.

        The app need not be started for it.

        Raises:
            LookupError: there is no such shard.
            InvalidStateError: the broker belongs to no app with a database.

        Example:
            ```python
            for message in await app.broker.outbox().dead():
                print(message.destination, message.error)
            await app.broker.outbox().requeue()
            ```
        """
        if self._database is None or self._tables is None:
            raise InvalidStateError(
                f"{self!r} has no outbox: that is in the database of an app, "
                "App(database=…, broker=…)."
            )
        changed = None
        if self._relays:
            changed = partial(self._database.watcher.changed, "outbox", shard)
        return OutboxDesk(self._database.shard(shard), self._tables, changed)

    def relay(self, shard: str = "") -> Relay:
        """Return what publishes the outbox of a shard.

        Raises:
            LookupError: there is none, or the broker was not started.
        """
        try:
            return self._relays[shard]
        except KeyError:
            raise LookupError(
                f"{self!r} publishes nothing of a shard {shard!r}; is the app started?"
            ) from None

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """What is received, and as whom; what will be, where the app is not started."""
        return tuple(self._consumers) or tuple(self._subscriptions())

    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        """Return messages that could not be handled, the oldest first.

        Args:
            subscription: one of `subscriptions`.
            limit: how many at most.
        """
        return await self.transport.dead(subscription, limit)

    async def requeue(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        """Have messages that could not be handled delivered again; all if `ids` is None.

        Returns:
            How many.
        """
        return await self.transport.requeue_dead(subscription, ids)

    async def drop(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        """Delete messages that could not be handled; all if `ids` is None.

        Returns:
            How many.
        """
        return await self.transport.drop_dead(subscription, ids)

    @property
    def error(self) -> str | None:
        """Why messages are not published or received now; None if they are."""
        reasons = (
            self._error,
            *(each.unavailable or each.error for each in self._relays.values()),
            *(each.health()["error"] for each in self._subscribed.values()),
        )
        return next(filter(None, reasons), None)

    def health(self) -> dict[str, Any]:
        """Return how messages go out and come in.

        Returns:
            the `transport`, whether it is `connected`, and the `error` if not; the `outbox` of each
            shard, see `Relay.health`; and for each of the `subscriptions`, how many messages of it
            became what since the start, how many are `in_flight`, how many wait: `lag`, None where
            the broker does not tell, and its `error`, None if all is well.
        """
        return {
            "transport": self.transport.capabilities.name,
            **self.transport.health(),
            "outbox": {name: relay.health() for name, relay in self._relays.items()},
            "subscriptions": [
                {
                    "destination": subscription.destination,
                    "group": subscription.group,
                    "mode": subscription.mode,
                    **asdict(consumer.counts),
                    "lag": self._lags.get(subscription),
                    **(
                        self._subscribed[subscription].health()
                        if subscription in self._subscribed
                        else {"error": self._error or "not subscribed yet"}
                    ),
                }
                for subscription, consumer in self._consumers.items()
            ],
        }

    def __repr__(self) -> str:
        return f"<Broker {self.transport.capabilities.name} as {self.source!r}>"


async def _lag_of(subscribed: Subscribed) -> int | None:
    try:
        async with asyncio.timeout(_ASK_EVERY):
            return await subscribed.lag()
    except Exception:
        return None  # the broker is away, which its health tells


def _prefix(database: Database) -> str:
    name = database.tables.events.name
    return name[: -len("events")] if name.endswith("events") else "_"


def _first(database: Database) -> str:
    name = next(iter(database.shards), None)
    if name is None:
        raise DefinitionError("A database without shards has no place for the inbox; add one.")
    return name


def _sweep(handlers: Sequence[ServiceHandler]) -> None:
    """Make stale what services computed: they may have missed events."""
    for handler in handlers:
        for table in list(getattr(handler.service, TABLES, {}).values()):
            table.invalidate_all("events may have been missed")
