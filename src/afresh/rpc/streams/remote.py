"""The consumer's side of a stream: takes in what arrives, hands it out, acknowledges what was read.

The owner decides on the window and this side holds it to that, so that what waits here is bounded.
Which stream a message is for, and what connections and peers do, is the table's part.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from afresh.errors import InvalidStateError, LimitError, RpcError

from .sections import MAX_BATCH

if TYPE_CHECKING:
    from ..formats import Codec
    from .reference import StreamReference
    from .table import StreamTable

__all__ = ["MAX_UNREAD", "RemoteStream"]

T = TypeVar("T")

MAX_UNREAD = 268_435_456
"""How many bytes of items may wait to be read, in all streams of a peer together."""


class RemoteStream(Generic[T]):
    """A stream that the other side owns; see `RpcStream` for how it is read.

    Args:
        table: the streams of the peer.
        reference: which stream it is.
        item_type: what the items are.
    """

    __slots__ = (
        "_acked",
        "_error",
        "_has_begun",
        "_has_gap",
        "_is_ack_due",
        "_is_over",
        "_is_stepwise",
        "_items",
        "_loop",
        "_period",
        "_received",
        "_sizes",
        "_waiter",
        "_window",
        "batches",
        "generation",
        "item_type",
        "reference",
        "singles",
        "table",
    )

    def __init__(self, table: StreamTable, reference: StreamReference, item_type: Any) -> None:
        self.table: StreamTable = table
        self.reference: StreamReference = reference
        self.item_type: Any = item_type
        self.generation: int = table.generation
        """Which of the peers that were behind the link owns the stream."""
        self.singles: Codec = table.codec(int, item_type)
        self.batches: Codec = table.codec(int, list[item_type])
        advance = reference.ack_advance
        # Not every owner takes care that its consumer acknowledges before the window is used up.
        self._period = min(reference.ack_period, (advance + 1) // 2)
        self._window = 2 * advance + reference.ack_period
        self._items: deque[T] = deque()
        self._sizes: deque[tuple[int, int]] = deque()
        self._received = 0
        self._acked = 0
        self._has_gap = False
        self._has_begun = False
        self._is_stepwise = False
        self._is_over = False
        self._is_ack_due = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- reading

    def iterate(self) -> AsyncGenerator[T, None]:
        """Return the iterator that reads everything; closing it ends the stream.

        Raises:
            InvalidStateError: the stream is, or was, read already.
        """
        if self._has_begun:
            raise InvalidStateError(
                "A stream from another peer can be read once only. Ask for it again, or keep what "
                "you have read."
            )
        self._has_begun = True
        return self._iterate()

    async def _iterate(self) -> AsyncGenerator[T, None]:
        items = self._items
        take = items.popleft
        self._start()
        try:
            while True:
                while items:
                    # As many as there are until an acknowledgement is due.
                    for _ in repeat(None, min(len(items), self._credit())):
                        yield take()
                if self._is_over:
                    self._raise_error()
                    return
                self._credit()
                await self._wait()
        finally:
            self.leave()

    async def next(self) -> T:
        """Return the next item; a cancellation loses none.

        Raises:
            StopAsyncIteration: there are no more.
            InvalidStateError: the stream is read by `iterate`, or by another task.
        """
        if not self._is_stepwise:
            if self._has_begun:
                raise InvalidStateError("The stream is being read by an iterator; use only that.")
            self._has_begun = True
            self._is_stepwise = True
            self._start()
        items = self._items
        while not items:
            if self._is_over:
                self._raise_error()
                raise StopAsyncIteration
            self._credit()
            if self._waiter is not None:
                raise InvalidStateError("Another task waits for the next item of this stream.")
            await self._wait()
        item = items.popleft()
        self._credit()
        return item

    def leave(self) -> None:
        """Stop reading, and tell the owner so."""
        self._items.clear()
        self._error = None
        self.fail(None)

    def dropped(self) -> None:
        """Nobody holds the object any more that the stream is read step by step with."""
        if self._is_stepwise and not self._is_over and self._loop is not None:
            self._loop.call_soon_threadsafe(self.leave)

    def _start(self) -> None:
        if not self._is_over:
            self._loop = asyncio.get_running_loop()
            self.table.begin(self)

    async def _wait(self) -> None:
        assert self._loop is not None
        self._forget_sizes(self._received)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    # -- acknowledging

    def _credit(self) -> int:
        """Return how many items may be read until the next acknowledgement is due."""
        credit = self._acked + self._period - self._received + len(self._items)
        if credit > 0:
            return credit
        self._acknowledge_soon()
        return self._period

    def _acknowledge_soon(self) -> None:
        """Acknowledge what is read in this turn of the event loop together."""
        if not self._is_ack_due and not self._is_over and self._loop is not None:
            self._is_ack_due = True
            self._loop.call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        self._is_ack_due = False
        if self._is_over:
            return
        consumed = self._received - len(self._items)
        self._forget_sizes(consumed)
        if self._has_gap:
            self.reset()
        elif consumed > self._acked:
            self._acked = consumed
            self.table.send_ack(self, consumed, is_reset=False)

    def reset(self) -> None:
        """Ask the owner to go on where this side is, on a new connection or after a gap.

        With more than a window unread that waits until some of it is read: the owner may send
        another window each time, and connections may come and go while nobody reads.
        """
        unread = len(self._items)
        self._has_gap = unread > self.reference.ack_advance
        if self._has_gap:
            self._acked = self._received - unread
            return
        self._acked = self._received
        self.table.send_ack(self, self._received, is_reset=True)

    # -- what arrives

    def received(self, index: int, batch: Sequence[T], size: int) -> None:
        """Take in items.

        Args:
            index: that of the first one.
            batch: the items.
            size: in bytes, as they came.
        """
        if self._is_over:
            return
        if len(batch) > MAX_BATCH:
            self.fail(LimitError(f"{len(batch):,} items came in one message; {MAX_BATCH} may."))
            return
        expected = self._received
        if index != expected:
            if index < 0 or index > expected:
                self._note_gap(index)
                return
            batch = batch[expected - index :]  # the others were here before
            if not batch:
                return
        items = self._items
        end = expected + len(batch)
        consumed = expected - len(items)
        if end > consumed + self._window:
            self.fail(
                LimitError(
                    f"Item {end:,} came when {consumed:,} were read: the owner of the stream goes "
                    f"beyond its window of {self.reference.ack_advance:,} items."
                )
            )
            return
        items.extend(batch)
        self._received = end
        self._sizes.append((end, size))
        self.table.unread += size
        self._forget_sizes(consumed)
        if self.table.unread > MAX_UNREAD:
            self.fail(
                LimitError(
                    f"{self.table.unread:,} bytes of items from one peer wait to be read; "
                    f"{MAX_UNREAD:,} may. Read faster, or let the owner send less ahead."
                )
            )
        else:
            self._wake()

    def _forget_sizes(self, consumed: int) -> None:
        sizes = self._sizes
        while sizes and sizes[0][0] <= consumed:
            self.table.unread -= sizes.popleft()[1]

    def ended(self, index: int, error: BaseException | None) -> None:
        """There are `index` items, and no more."""
        if index == self._received:
            self.fail(error)
        elif index < 0 or index > self._received:
            self._note_gap(index)

    def fail(self, error: BaseException | None) -> None:
        """End the stream; what has come can still be read, then follows the error, if any."""
        if not self._is_over:
            self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        self._is_over = True
        self._error = error
        self._forget_sizes(self._received)
        self.table.finish(self)
        self._wake()

    def _note_gap(self, index: int) -> None:
        if index < 0:
            self.fail(RpcError(f"The owner of the stream gave an item the number {index}."))
        elif not self.reference.allow_reconnect:
            self.fail(
                RpcError(
                    f"Item {index:,} of the stream came when {self._received:,} was next, and the "
                    "stream does not allow to ask again."
                )
            )
        else:
            self._has_gap = True
            self._acknowledge_soon()
