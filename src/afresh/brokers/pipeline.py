"""What the relay has in hand: messages that wait, are published, or are to be noted.

Those of a key are published one after another. One that fails holds up the later ones of its key:
they are let go here, and are fetched again when it is done with.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from afresh.primitives.clock import current_clock
from afresh.primitives.tasks import start_background

from .transport import Outcome, OutgoingMessage, PublishResult

__all__ = ["Pipeline", "Publisher", "Settled", "WaitingMessage"]

TOGETHER = 0.05
"""Seconds that confirmed messages are collected, so that one statement notes them."""


@dataclass(slots=True, eq=False)
class WaitingMessage:
    """A message in the outbox.

    Args:
        id: its place there.
        bucket: the part of the outbox that it is in.
        chain: whose order it stands in: destination and key; None for no order.
        attempts: how often it was refused.
        was_held_up: whether later ones of its key have been waiting for it in the outbox.
        message: what is published.
    """

    id: int
    bucket: int
    chain: tuple[str, str] | None
    attempts: int
    was_held_up: bool
    message: OutgoingMessage


@dataclass(slots=True, eq=False)
class Settled:
    """A message, and what became of it."""

    waiting: WaitingMessage
    result: PublishResult


class Publisher(ABC):
    """What a pipeline works for."""

    @abstractmethod
    def may_publish(self, waiting: WaitingMessage) -> bool:
        """Whether the message is this host's to publish, still."""

    @abstractmethod
    async def publish(self, waiting: WaitingMessage) -> PublishResult:
        """Publish a message; raises nothing but cancellation."""

    @abstractmethod
    def holds_up(self, settled: Settled) -> bool:
        """Whether later messages of its key wait for one that failed."""

    @abstractmethod
    def lost(self, result: PublishResult) -> None:
        """The broker can't be reached."""

    @abstractmethod
    async def note(self, settled: Sequence[Settled]) -> None:
        """Write into the outbox what became of messages."""


class Pipeline:
    """Publishes messages, so many at once, and has noted what became of them.

    Args:
        publisher: does both.
        window: how many are published, and not confirmed yet.
    """

    def __init__(self, publisher: Publisher, window: int) -> None:
        self.held: dict[int, WaitingMessage] = {}
        """The messages in hand, by their places in the outbox, until they are noted."""
        self.error: Exception | None = None
        """Why what became of messages could not be noted; `resume()` tries again."""
        self._publisher = publisher
        self._window = window
        self._ready: deque[WaitingMessage] = deque()
        self._chains: dict[tuple[str, str], deque[WaitingMessage]] = {}
        self._unsent = 0
        self._lately: set[int] = set()  # noted, and to be seen by what is being read as before
        self._stuck: dict[tuple[str, str], WaitingMessage | None] = {}  # by what; None: noted
        self._has_let_go = False
        self._unblocking = 0
        self._settled: list[Settled] = []
        self._senders: set[asyncio.Task[None] | None] = set()
        self._noting: asyncio.Task[None] | None = None
        self._progress = asyncio.Event()
        self._enough = asyncio.Event()
        self._is_draining = False

    # -- what comes in

    @property
    def must_sweep(self) -> bool:
        """Whether messages were let go, so that the outbox has to be read from its beginning."""
        return self._has_let_go or self._unblocking > 0

    def begin(self, *, is_sweep: bool) -> None:
        """The outbox is going to be read.

        Args:
            is_sweep: whether from its beginning.
        """
        self._lately.clear()
        if not is_sweep:
            return
        self._has_let_go = False
        for chain in [chain for chain, waiting in self._stuck.items() if waiting is None]:
            del self._stuck[chain]

    def add(self, messages: Sequence[WaitingMessage], *, is_sweep: bool) -> int:
        """Take messages in the order of the outbox; those that are here already are left out.

        Args:
            messages: as they were read.
            is_sweep: whether from the beginning of the outbox.

        Returns:
            How many are new. None is taken where messages that stand before these were let go
            meanwhile.
        """
        if self._has_let_go or (self._unblocking and not is_sweep):
            return 0
        count = 0
        for waiting in messages:
            chain = waiting.chain
            if waiting.id in self.held or waiting.id in self._lately:
                continue
            if chain is not None and chain in self._stuck:
                continue
            count += 1
            self.held[waiting.id] = waiting
            if chain is None:
                self._ready.append(waiting)
            elif (behind := self._chains.get(chain)) is not None:
                behind.append(waiting)
            else:
                self._chains[chain] = deque()
                self._ready.append(waiting)
        self._unsent += count
        for _ in range(min(self._window - len(self._senders), len(self._ready))):
            self._senders.add(start_background(self._send(), name="afresh: publishing"))
        return count

    async def room(self, limit: int) -> None:
        """Wait until fewer than so many messages wait here to be published."""
        while self._unsent >= limit and self.error is None:
            self._progress.clear()
            await self._progress.wait()

    def let_go(self) -> None:
        """Publish nothing more of what is here; what is being published ends."""
        self._has_let_go = True
        for waiting in self._ready:
            del self.held[waiting.id]
            if waiting.chain is not None:
                self._forget(self._chains.pop(waiting.chain))
        self._ready.clear()
        for behind in self._chains.values():  # of those that are being published
            self._forget(behind)
            behind.clear()
        self._unsent = 0
        self._progress.set()

    def _forget(self, messages: Iterable[WaitingMessage]) -> None:
        for waiting in messages:
            del self.held[waiting.id]

    # -- publishing

    async def _send(self) -> None:
        publisher = self._publisher
        try:
            while self._ready:
                waiting = self._ready.popleft()
                self._unsent -= 1
                self._progress.set()
                if publisher.may_publish(waiting):
                    self._settle(Settled(waiting, await publisher.publish(waiting)))
                else:
                    self._has_let_go = True
                    self._drop(waiting)
        finally:
            self._senders.discard(asyncio.current_task())

    def _settle(self, settled: Settled) -> None:
        waiting, result = settled.waiting, settled.result
        if result.outcome is Outcome.UNAVAILABLE:
            self._drop(waiting)
            self.let_go()
            self._publisher.lost(result)
            return
        chain = waiting.chain
        if chain is not None:
            if not result.is_confirmed and self._publisher.holds_up(settled):
                self._stuck[chain] = waiting
                self._drop_behind(chain)
            else:
                self._advance(chain)
        self._settled.append(settled)
        if self._is_urgent(settled) or len(self._settled) >= self._window:
            self._enough.set()
        self._start_noting()

    def _advance(self, chain: tuple[str, str]) -> None:
        behind = self._chains[chain]
        if behind:
            self._ready.append(behind.popleft())
        else:
            del self._chains[chain]

    def _drop(self, waiting: WaitingMessage) -> None:
        del self.held[waiting.id]
        if waiting.chain is not None:
            self._drop_behind(waiting.chain)

    def _drop_behind(self, chain: tuple[str, str]) -> None:
        behind = self._chains.pop(chain)
        self._unsent -= len(behind)
        self._forget(behind)

    # -- noting

    def resume(self) -> None:
        """Note what could not be noted before."""
        self.error = None
        self._start_noting()

    def _start_noting(self) -> None:
        if self._noting is None and self._settled and self.error is None:
            self._noting = start_background(self._note(), name="afresh: noting")

    async def _note(self) -> None:
        settled: list[Settled] = []
        try:
            while self._settled:
                await self._collect()
                settled, self._settled = self._settled, []
                # Before it is noted: what stood behind a message may be read as soon as it is.
                unblocks = any(each.waiting.was_held_up for each in settled)
                self._unblocking += unblocks
                try:
                    await self._publisher.note(settled)
                finally:
                    self._unblocking -= unblocks
                    self._has_let_go |= unblocks
                for each in settled:
                    chain = each.waiting.chain
                    del self.held[each.waiting.id]
                    self._lately.add(each.waiting.id)
                    if chain is not None and self._stuck.get(chain) is each.waiting:
                        self._stuck[chain] = None
                settled = []
        except Exception as error:
            self.error = error
        finally:
            self._settled[:0] = settled
            self._noting = None
            self._progress.set()

    async def _collect(self) -> None:
        if self._is_draining or len(self._settled) >= self._window:
            return
        if any(map(self._is_urgent, self._settled)):
            return
        self._enough.clear()
        timer = current_clock().call_later(TOGETHER, self._enough.set)
        try:
            await self._enough.wait()
        finally:
            timer.cancel()

    def _is_urgent(self, settled: Settled) -> bool:
        """Whether others wait until it is noted."""
        return settled.waiting.was_held_up or not settled.result.is_confirmed

    # -- the end

    async def drain(self, patience: float) -> None:
        """Publish nothing more, and note what is being published.

        Args:
            patience: seconds for that; then it is given up.
        """
        self._is_draining = True
        self._enough.set()
        self.let_go()
        await _end(self._senders, patience)
        self._senders.clear()
        await _end({self._noting}, patience)


async def _end(tasks: set[asyncio.Task[None] | None], patience: float) -> None:
    """Wait for tasks, and cancel those that take longer."""
    waited = [task for task in tasks if task is not None]
    if waited:
        _, late = await asyncio.wait(waited, timeout=patience)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
