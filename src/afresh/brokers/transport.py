"""What every broker is to afresh: something that takes messages, and hands them to subscribers.

A transport moves bytes with attributes; what they mean is nothing to it. It confirms what it took,
hands over each message until it is settled, and says what it can't do in its `capabilities`.
"""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

__all__ = [
    "Ack",
    "Capabilities",
    "DeadLetter",
    "DeadMessage",
    "Disposition",
    "Handler",
    "IncomingMessage",
    "Outcome",
    "OutgoingMessage",
    "PublishResult",
    "Retry",
    "Subscribed",
    "Subscription",
    "Transport",
]

# -- publishing


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to be published.

    Args:
        id: its name, by which it is known again when it is published twice.
        destination: the logical channel: an exchange, a topic, a stream, a subject.
        type: of the event, for brokers that route by it.
        body: the data.
        content_type: of the data.
        attributes: of CloudEvents, without prefix: "id", "source", "type" and so on.
        headers: more, for anybody who reads them.
        key: messages of one key stay in order; None for no order.
    """

    id: str
    destination: str
    type: str
    body: bytes
    content_type: str = "application/json"
    attributes: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None


class Outcome(enum.Enum):
    """What became of publishing a message."""

    CONFIRMED = "confirmed"
    """The broker has it, as durably as it keeps messages."""
    TRANSIENT = "transient"
    """Not this time; the message may be taken later."""
    PERMANENT = "permanent"
    """Never: it is too large, has nowhere to go, or may not go there."""
    UNAVAILABLE = "unavailable"
    """The broker can't be reached: nothing is wrong with the message."""


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What became of publishing a message, and why."""

    outcome: Outcome
    error: str | None = None

    @property
    def is_confirmed(self) -> bool:
        """Whether the broker has it."""
        return self.outcome is Outcome.CONFIRMED


CONFIRMED = PublishResult(Outcome.CONFIRMED)

# -- consuming


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message that a subscriber is handed.

    Args:
        destination: the logical channel that it came by.
        body: the data.
        content_type: of the data; "" where it was not said.
        attributes: of CloudEvents, without prefix.
        headers: the others.
        key: of the order that it stands in, where the broker tells.
        deliveries: how often it was handed over, this time included, as far as the broker knows.
    """

    destination: str
    body: bytes
    content_type: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    deliveries: int = 1


@dataclass(frozen=True, slots=True)
class Ack:
    """The message is done with."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The message is to be handed over again.

    Args:
        delay: seconds until then, at least.
    """

    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The message can't be handled; it is put aside, with what is known of that.

    Args:
        reason: why, in a few words.
        error: the type of the error, where there was one.
    """

    reason: str
    error: str = ""


Disposition: TypeAlias = Ack | Retry | DeadLetter

Handler: TypeAlias = Callable[[IncomingMessage], Awaitable[Disposition]]
"""Handles a message, and says what becomes of it; one that it raises for is handed over again."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What is subscribed to, and as whom.

    Args:
        destination: the logical channel.
        group: subscribers of a group share its messages; each group gets all of them.
        mode: "group", or "broadcast": this subscriber gets every message from now on for itself,
            for as long as it is there, whatever the group.
        workers: how many messages are handled at once; those of one key one after another.
        prefetch: how many are fetched ahead; twice the workers unless given.
        types: of events that are wanted, for brokers that can leave out the others; all if empty.
        ordered: whether a message that is handled again holds up the later ones of its key.
        on_connected: called whenever the subscription is there again after it was lost.
    """

    destination: str
    group: str
    mode: Literal["group", "broadcast"] = "group"
    workers: int = 8
    prefetch: int | None = None
    types: frozenset[str] = frozenset()
    ordered: bool = True
    on_connected: Callable[[], object] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.workers < 1 or (self.prefetch is not None and self.prefetch < 1):
            raise ValueError(f"{self!r} must handle, and fetch, one message or more at a time.")

    @property
    def fetched(self) -> int:
        """How many messages are fetched ahead."""
        return self.prefetch if self.prefetch is not None else 2 * self.workers


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message that was put aside.

    Args:
        id: names it for `requeue_dead` and `drop_dead`.
        message: as it was delivered last.
        reason: why it was put aside.
        error: the type of the error, where there was one.
        died_at: when, in seconds since 1970; None where the broker does not tell.
    """

    id: str
    message: IncomingMessage
    reason: str
    error: str = ""
    died_at: float | None = None


class Subscribed(ABC):
    """A subscription that is there; `aclose` ends it."""

    @abstractmethod
    async def aclose(self, drain: float = 30.0) -> None:
        """Fetch no more, let handlers end, and settle what they handled.

        Args:
            drain: seconds that handlers get; they are cancelled then, and their messages handed
                over again, here or elsewhere.
        """

    @abstractmethod
    async def lag(self) -> int | None:
        """Return how many messages wait for it at the broker; see `Transport.lag`."""

    @abstractmethod
    def health(self) -> dict[str, Any]:
        """Return how it is doing: `in_flight`, and `error` if nothing comes."""


# -- the broker


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a broker can do, and what not.

    Args:
        name: of the broker.
        prefix: in front of the attributes of CloudEvents in headers.
        is_durable: whether confirmed messages outlive the broker's process.
        ordered_keys: whether messages of a key are handed over in order within a group.
        deduplicates: seconds for which a message that is published twice is taken once; 0 if not.
        delays_retries: whether the broker itself waits before it hands over again.
        has_dead_letters: whether it keeps dead messages, to be listed and requeued.
        max_bytes: the largest body that it takes.
    """

    name: str
    prefix: str
    is_durable: bool
    ordered_keys: bool
    deduplicates: float
    delays_retries: bool
    has_dead_letters: bool
    max_bytes: float = math.inf


class Transport(ABC):
    """A broker. Methods may be called from `start()` to `aclose()`, from one event loop."""

    capabilities: Capabilities

    @abstractmethod
    async def start(self) -> None:
        """Connect.

        Raises:
            ConnectionError: the broker can't be reached. Starting may be tried again.
        """

    @abstractmethod
    async def publish(self, messages: Sequence[OutgoingMessage]) -> Sequence[PublishResult]:
        """Publish messages, and wait until the broker has confirmed or refused each.

        Messages of one key are published in the order given, and the later ones not before the
        earlier are confirmed where the broker could swap them.

        Returns:
            What became of each, in the same order. It raises nothing but cancellation.
        """

    @abstractmethod
    async def subscribe(self, subscription: Subscription, handler: Handler) -> Subscribed:
        """Have messages handed to a function, after connections were lost as well.

        Raises:
            ConnectionError: the broker can't be reached.
        """

    @abstractmethod
    async def lag(self, subscription: Subscription) -> int | None:
        """Return how many messages of a group wait at the broker to be handed over.

        Those that wait for their retry count as well, as far as the broker knows of them.

        Returns:
            How many; None where the broker does not tell, and for a group that it does not know.

        Raises:
            Exception: the broker can't be reached, or refuses to say.
        """

    @abstractmethod
    async def dead(self, subscription: Subscription, limit: int = 100) -> Sequence[DeadMessage]:
        """Return dead messages of a group, the oldest first; they stay where they are."""

    @abstractmethod
    async def requeue_dead(
        self, subscription: Subscription, ids: Sequence[str] | None = None
    ) -> int:
        """Have dead messages handed to the group again, as if for the first time.

        Args:
            subscription: the group.
            ids: which; all if None.

        Returns:
            How many.
        """

    @abstractmethod
    async def drop_dead(self, subscription: Subscription, ids: Sequence[str] | None = None) -> int:
        """Delete dead messages; returns how many."""

    @abstractmethod
    def health(self) -> dict[str, Any]:
        """Return how the connection is: `connected`, and `error` if it is not."""

    @abstractmethod
    async def aclose(self) -> None:
        """Disconnect; subscriptions should be closed before. Closing again does nothing."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
