"""The owner's side of a stream: reads the source, sends within the window, keeps what may be asked
for again.

One task reads the source and does nothing else; items are encoded as they come and leave in
batches, the first one of each turn of the event loop at once. Which stream a message is for, and
what connections and peers do, is the table's part.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from afresh.errors import LimitError, RpcError
from afresh.primitives.clock import Timer, current_clock
from afresh.primitives.tasks import start_background

from ..exceptions import NO_ERROR
from .reference import coding
from .sections import MAX_BATCH

if TYPE_CHECKING:
    from ..exceptions import ExceptionInfo
    from .stream import RpcStream
    from .table import StreamTable

__all__ = ["SharedStream"]

BATCH = 65_536
"""About how many bytes a message of several items may take."""
BUFFER = 4_194_304
"""About how many bytes may be sent and not acknowledged; but always as many items as the consumer
may read without acknowledging."""
PAUSE = 0.05
"""Seconds until it is looked again whether a connection that has too much to send has less."""
SLICE = 0.002
"""Seconds that a source may keep the event loop busy before others get their turn."""

_ITEM = 64
"""What an item counts for beside its own size: so many small ones are a batch, too."""
_FIRST_BATCH = 1024
"""The more a source gives without waiting for anything, the longer batches get, from this on."""
_FRAMING = 64
"""More bytes than a message takes beside its items and what separates them."""


class SharedStream:
    """A stream that the other side may read.

    Args:
        table: the streams of the peer.
        stream: the source, and the rules.
        item_type: what the items are.
        local_id: its number on the wire.
    """

    __slots__ = (
        "_batch",
        "_buffered",
        "_encode",
        "_end",
        "_first",
        "_is_closed",
        "_is_reading",
        "_is_turn_marked",
        "_items",
        "_loop",
        "_marks",
        "_room",
        "_sent",
        "_task",
        "_timer",
        "_turn_began_at",
        "local_id",
        "mentioned_at",
        "stream",
        "table",
    )

    def __init__(
        self, table: StreamTable, stream: RpcStream[Any], item_type: Any, local_id: int
    ) -> None:
        self.table: StreamTable = table
        self.stream: RpcStream[Any] = stream
        self.local_id: int = local_id
        self.mentioned_at: float = current_clock().now()
        """When the consumer was last heard of."""
        self._encode = self._encoder(item_type)
        # Items that no message can hold are more than a batch, and noticed as that.
        self._batch = min(BATCH, (table.link.limits.max_arguments - _FRAMING) // 2)
        # Items from _first, which is where the consumer has acknowledged everything before, to the
        # latest one. Those before _sent are under way; the end counts as one more item.
        self._items: list[bytes] = []
        self._first = 0
        self._sent = 0
        self._end: ExceptionInfo | None = None
        # Where batches ended, and what they took.
        self._marks: deque[tuple[int, int]] = deque()
        self._buffered = 0
        self._room: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._is_closed = False
        self._is_reading = False
        self._is_turn_marked = False
        self._turn_began_at = 0.0

    @property
    def is_started(self) -> bool:
        """Whether the consumer has begun to read."""
        return self._task is not None

    # -- what the consumer says

    def acknowledge(self, index: int, *, is_reset: bool) -> bool:
        """Go on as the consumer says: it has all items before `index`.

        Args:
            index: what the consumer expects next.
            is_reset: whether everything from there on is to be sent again.

        Returns:
            Whether that was acceptable; if not, the stream is of no use any more.
        """
        if self._task is None:
            if index or not is_reset:
                return False
            self._start()
            return True
        if is_reset and not self.stream.allow_reconnect:
            return False
        items = self._items
        if not 0 <= index <= self._first + len(items):
            return False
        if index < self._first:
            if is_reset:
                self._refuse_position(index)
            return True
        del items[: index - self._first]
        self._first = index
        marks = self._marks
        while marks and marks[0][0] <= index:
            self._buffered -= marks.popleft()[1]
        if is_reset:
            self._restart(index)
        elif self._sent < index:
            self._sent = index
        if self._sent <= self._first + len(items):
            self._mark_turn()
        self._note_room()
        return True

    def close(self) -> None:
        """Stop reading the source, close it, and send nothing any more."""
        if self._is_closed:
            return
        self._is_closed = True
        self._is_turn_marked = False
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and self._is_reading:
            self._task.cancel()
        if not self.stream._is_claimed:
            start_background(self.stream._close_unread, name=f"close {self!r}")

    # -- reading the source

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_reading = True
        self._task = start_background(
            self._run, name=f"read {self!r}", context=self.table.link.context.copy()
        )

    async def _run(self) -> None:
        source: AsyncIterator[Any] | None = None
        try:
            try:
                source = self.stream._claim()
                await self._read(source)
            except asyncio.CancelledError as error:
                if self._is_closed:
                    raise
                self._finish(self._info(error))
            except Exception as error:
                self._finish(self._info(error))
            else:
                self._finish(NO_ERROR)
        finally:
            self._is_reading = False  # nobody is to interrupt what the source does to clean up
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    async def _read(self, source: AsyncIterator[Any]) -> None:
        items = self._items
        append = items.append
        encode = self._encode
        advance = self.stream.ack_advance
        budget = room = min(_FIRST_BATCH, self._batch)
        async for item in source:
            data = encode(item)
            append(data)
            room -= len(data) + _ITEM
            if room <= 0:
                if self._is_closed:
                    return
                budget = await self._end_batch(budget, budget - room)
                room = budget
            elif not self._is_turn_marked:
                # The first one since others had their turn; more may come, or nothing for an hour.
                if self._is_closed:
                    return
                self._mark_turn()
                self._flush()
            if len(items) >= advance:
                await self._wait_for_room(advance)

    async def _end_batch(self, budget: int, size: int) -> int:
        """Send what there is, let others have their turn, and return the budget of the next batch.

        Args:
            budget: that of this batch, in bytes.
            size: what it takes, in bytes.
        """
        self._check_last()
        self._marks.append((self._first + len(self._items), size))
        self._buffered += size
        self._mark_turn()
        self._flush()
        slices = (time.perf_counter() - self._turn_began_at) / SLICE
        await asyncio.sleep(0)
        await self._wait_for_room(self.stream.ack_advance)
        self._mark_turn()  # the source did not wait, and may have more at once
        # By steps: a slice may be long because the machine had other things to do.
        return max(min(int(budget / min(max(slices, 0.5), 2)), self._batch), _ITEM)

    def _check_last(self) -> None:
        limit = self.table.link.limits.max_arguments - _FRAMING
        size = len(self._items[-1])
        if size > limit:
            self._items.pop()
            raise LimitError(
                f"An item of the stream takes {size:,} bytes; Limits.max_arguments allows "
                f"{limit:,}. Send it in parts."
            )

    async def _wait_for_room(self, advance: int) -> None:
        assert self._loop is not None
        items = self._items
        link = self.table.link
        while (
            len(items) >= advance
            or (self._buffered > BUFFER and len(items) > self.stream.ack_period)
            or (items and link.is_clogged)
        ):
            self._flush()
            self._room = self._loop.create_future()
            await self._room
            self._room = None

    def _note_room(self) -> None:
        room = self._room
        if room is not None and not room.done():
            room.set_result(None)

    def _encoder(self, item_type: Any) -> Callable[[Any], bytes]:
        codec = self.table.codec(item_type)
        encode = codec.encode_item
        if not codec.has_streams:
            return encode
        table = self.table

        def encode_with_streams(item: Any) -> bytes:
            with coding(table, (item_type,)):
                return encode(item)

        return encode_with_streams

    # -- sending

    def _mark_turn(self) -> None:
        """See that what is not sent yet leaves when others had their turn."""
        if not self._is_turn_marked:
            assert self._loop is not None
            self._is_turn_marked = True
            self._turn_began_at = time.perf_counter()
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        if not self._is_closed:
            self._is_turn_marked = False
            self._flush()

    def _flush(self) -> None:
        """Send what is not sent yet, and may be."""
        if self.table.link.is_clogged:
            self._flush_later()
            return
        items = self._items
        first = self._first
        sent = self._sent
        end = min(first + len(items), first + self.stream.ack_advance)
        while sent < end:
            batch = items[sent - first : min(end, sent + MAX_BATCH) - first]
            while len(batch) > 1 and sum(map(len, batch)) + len(batch) > 2 * self._batch:
                del batch[len(batch) // 2 :]
            self.table.send_items(self, sent, batch)
            sent += len(batch)
        if self._end is not None and sent == first + len(items) < first + self.stream.ack_advance:
            self.table.send_end(self, sent, self._end)
            sent += 1
        self._sent = sent

    def _flush_later(self) -> None:
        if self._timer is None and not self._is_closed:
            self._timer = current_clock().call_later(PAUSE, self._flush_again)

    def _flush_again(self) -> None:
        self._timer = None
        if not self._is_closed:
            self._flush()
            self._note_room()

    def _restart(self, index: int) -> None:
        """Send everything from `index` on once more."""
        self._sent = index

    def _finish(self, end: ExceptionInfo) -> None:
        if not self._is_closed:
            self._end = end
            self._flush()

    def _refuse_position(self, index: int) -> None:
        error = RpcError(
            f"Item {index:,} of the stream is not kept any more: the consumer has acknowledged "
            f"everything before {self._first:,}."
        )
        self.table.send_end(self, index, self._info(error))

    def _info(self, error: BaseException) -> ExceptionInfo:
        return self.table.link.hub.exceptions.describe(error, repr(self.stream))

    def __repr__(self) -> str:
        return f"<SharedStream {self.local_id} of {self.table.link!r}>"
