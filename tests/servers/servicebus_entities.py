"""What a namespace of Azure Service Bus holds: topics, subscriptions, and messages under locks.

Behaves as the service's documentation says: a message that is received is locked until it is
settled or the lock expires, then it is delivered again with a higher delivery count, and put into
the dead-letter queue after too many; dead messages keep the reason; a topic may drop messages whose
id it has seen; scheduled ones are enqueued at their time; a session is read by one receiver at a
time, in order. Nothing here knows of the wire.
"""

from __future__ import annotations

import heapq
import itertools
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

DEAD = "/$deadletterqueue"


class NotFound(Exception):
    """There is no such topic, subscription or queue."""


class SessionRefused(Exception):
    """A session can't be had; `name` is what the service calls that."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


@dataclass(order=True)
class Stored:
    """A message in a queue."""

    sequence: int
    message: Any = field(compare=False)
    enqueued: float = field(compare=False)
    deliveries: int = field(default=0, compare=False)
    properties: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass
class Lock:
    """A message that somebody received and has not settled."""

    stored: Stored
    until: float
    owner: Any


@dataclass
class Session:
    """A session that one receiver has."""

    owner: Any
    until: float


class Queue:
    """A subscription of a topic, or its dead-letter queue."""

    def __init__(
        self,
        *,
        lock_seconds: float = 60.0,
        most_deliveries: float = 10,
        is_dead: bool = False,
        has_sessions: bool = False,
    ) -> None:
        self.lock_seconds = lock_seconds
        self.most_deliveries = most_deliveries
        self.has_sessions = has_sessions
        self.sessions: dict[str, Session] = {}
        self.states: dict[str, bytes] = {}
        self.ready: list[Stored] = []
        self.locks: dict[uuid.UUID, Lock] = {}
        self.links: list[Any] = []
        self.dead: Queue | None = (
            None if is_dead else Queue(most_deliveries=float("inf"), is_dead=True)
        )

    def __len__(self) -> int:
        """How many are not settled, locked or not."""
        return len(self.ready) + len(self.locks)

    def put(self, stored: Stored) -> None:
        heapq.heappush(self.ready, stored)

    def receive(self, owner: Any) -> tuple[uuid.UUID, Lock] | None:
        """Lock the oldest message that is not locked; of the owner's session, if there are any."""
        stored = self._next(owner)
        if stored is None:
            return None
        token = uuid.uuid4()
        lock = Lock(stored, time.time() + self.lock_seconds, owner)
        self.locks[token] = lock
        return token, lock

    def _next(self, owner: Any) -> Stored | None:
        if not self.has_sessions:
            return heapq.heappop(self.ready) if self.ready else None
        name = self.session_of(owner)
        found = min((each for each in self.ready if each.message.group_id == name), default=None)
        if name is None or found is None:
            return None
        self.ready.remove(found)
        heapq.heapify(self.ready)
        return found

    # -- sessions

    def accept(self, owner: Any, name: str | None) -> str:
        """Lock the session of this name, or the next that has messages, for a receiver."""
        if name is None:
            names = (each.message.group_id for each in sorted(self.ready))
            name = next((each for each in names if each and each not in self.sessions), None)
            if name is None:
                raise SessionRefused("com.microsoft:timeout", "No session has messages.")
        elif name in self.sessions:
            raise SessionRefused(
                "com.microsoft:session-cannot-be-locked", f"Somebody else has session {name!r}."
            )
        self.sessions[name] = Session(owner, time.time() + self.lock_seconds)
        return name

    def session_of(self, owner: Any) -> str | None:
        """The session that a receiver has."""
        return next((name for name, each in self.sessions.items() if each.owner == owner), None)

    def renew_session(self, name: str) -> float:
        session = self.sessions.get(name)
        if session is None:
            raise SessionRefused("com.microsoft:session-lock-lost", f"Session {name!r} is lost.")
        session.until = time.time() + self.lock_seconds
        return session.until

    def complete(self, token: uuid.UUID) -> bool:
        return self.locks.pop(token, None) is not None

    def release(self, token: uuid.UUID, *, has_failed: bool) -> bool:
        """Unlock a message, to be delivered again; dead after too many deliveries that failed."""
        lock = self.locks.pop(token, None)
        if lock is None:
            return False
        stored = lock.stored
        stored.deliveries += has_failed
        if self.dead is not None and stored.deliveries >= self.most_deliveries:
            self.dead.put(
                replace(
                    stored,
                    properties={
                        "DeadLetterReason": "MaxDeliveryCountExceeded",
                        "DeadLetterErrorDescription": "It was delivered too often.",
                    },
                )
            )
        else:
            self.put(stored)
        return True

    def bury(self, token: uuid.UUID, properties: dict[str, str]) -> bool:
        lock = self.locks.pop(token, None)
        if lock is None:
            return False
        (self if self.dead is None else self.dead).put(
            replace(lock.stored, properties=properties, deliveries=0)
        )
        return True

    def renew(self, token: uuid.UUID) -> float | None:
        lock = self.locks.get(token)
        if lock is None:
            return None
        lock.until = time.time() + self.lock_seconds
        return lock.until

    def expire(self, now: float) -> bool:
        for name in [name for name, each in self.sessions.items() if each.until <= now]:
            self.free(self.sessions[name].owner)
        # In a session, its lock is that of its messages.
        expired = [
            token
            for token, lock in self.locks.items()
            if lock.until <= now and not self.has_sessions
        ]
        for token in expired:
            self.release(token, has_failed=True)
        return bool(expired)

    def forget(self, owner: Any) -> None:
        """Unlock what a link held that is gone; the service waits for the lock to expire, at most.

        A receiver that closed its link can't settle any more, so nothing is gained by waiting.
        """
        if owner in self.links:
            self.links.remove(owner)
        self.free(owner)

    def free(self, owner: Any) -> None:
        """Let others have the session of a receiver, and what it has not settled."""
        name = self.session_of(owner)
        if name is not None:
            del self.sessions[name]
        for token in [token for token, lock in self.locks.items() if lock.owner == owner]:
            self.release(token, has_failed=True)

    def peek(self, first: int, count: int) -> list[tuple[Stored, bool]]:
        """The oldest messages from a sequence number on, locked ones too."""
        held = [(lock.stored, True) for lock in self.locks.values()]
        found = [(each, False) for each in self.ready] + held
        found = sorted((pair for pair in found if pair[0].sequence >= first), key=lambda p: p[0])
        return found[:count]


@dataclass
class Topic:
    """Hands each message to all its subscriptions."""

    duplicate_seconds: float = 0.0
    subscriptions: dict[str, Queue] = field(default_factory=dict)
    scheduled: list[Stored] = field(default_factory=list)
    seen: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def is_duplicate(self, name: str | None) -> bool:
        now = time.time()
        while self.seen and next(iter(self.seen.values())) < now - self.duplicate_seconds:
            self.seen.popitem(last=False)
        if not self.duplicate_seconds or not name:
            return False
        if name in self.seen:
            return True
        self.seen[name] = now
        return False


class Namespace:
    """Topics by name; names are the same whatever their case."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self._sequences = itertools.count(1)

    def topic(self, path: str) -> Topic:
        found = self.topics.get(path.lower())
        if found is None:
            raise NotFound(f"The messaging entity '{path}' could not be found.")
        return found

    def queue(self, path: str) -> Queue:
        """The queue of a path: topic/Subscriptions/name, and /$DeadLetterQueue after it."""
        lower = path.lower()
        is_dead = lower.endswith(DEAD)
        topic, _, name = lower.removesuffix(DEAD).rpartition("/subscriptions/")
        found = self.topics[topic].subscriptions.get(name) if topic in self.topics else None
        if found is not None and is_dead:
            found = found.dead
        if found is None:
            raise NotFound(f"The messaging entity '{path}' could not be found.")
        return found

    def send(self, topic: Topic, message: Any, due: float | None = None) -> int:
        """Enqueue a message, now or at a time; returns its sequence number."""
        number = next(self._sequences)
        if topic.is_duplicate(message.id):
            return number
        stored = Stored(number, message, time.time())
        if due is not None and due > time.time():
            topic.scheduled.append(replace(stored, enqueued=due))
        else:
            self._enqueue(topic, stored)
        return number

    def _enqueue(self, topic: Topic, stored: Stored) -> None:
        for queue in topic.subscriptions.values():
            queue.put(replace(stored))

    def tick(self, now: float) -> None:
        """Enqueue what is due, and unlock what was held too long."""
        for topic in self.topics.values():
            for stored in sorted(each for each in topic.scheduled if each.enqueued <= now):
                topic.scheduled.remove(stored)
                self._enqueue(topic, replace(stored, sequence=next(self._sequences)))
        for queue in self.queues():
            queue.expire(now)

    def queues(self) -> Iterator[Queue]:
        for topic in list(self.topics.values()):
            for queue in list(topic.subscriptions.values()):
                yield queue
                if queue.dead is not None:
                    yield queue.dead
