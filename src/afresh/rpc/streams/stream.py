"""`RpcStream`: a stream as programs see it, on the side that has the source and on the other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from afresh.errors import InvalidStateError

from .item_types import item_type_of
from .reference import ACK_ADVANCE, ACK_PERIOD

if TYPE_CHECKING:
    from .remote import RemoteStream

__all__ = ["RpcStream"]

T_co = TypeVar("T_co", covariant=True)

_ACK_PERIOD = 64
_ACK_ADVANCE = 2048


class RpcStream(AsyncIterator[T_co]):
    """Values that go to the other side one by one, as they come.

    Wrap any async iterable to return it from a method or to pass it to one, also inside a record:

    ```python
    class Market:
        async def prices(self, symbol: str) -> RpcStream[float]:
            return RpcStream(self._follow(symbol))
    ```

    On the other side it is an async iterator, to be read once:

    ```python
    async for price in await market.prices("ACME"):
        print(price)
    ```

    Nothing of the source runs before the other side begins to read. It runs in a task of its own,
    in which `current_peer()` is the reader, never more than `ack_advance` items ahead of what was
    read, and is closed when the reader leaves, by `break`, `aclose()` or a cancellation. An error
    in it ends the stream and reaches the reader. Do not use a stream for things that all readers
    share, such as a cached value that changes; that is what compute methods are for.

    Reading with `async for` ends with the loop, however that is left. `await anext(stream)` reads
    step by step: a cancelled or timed-out `anext` loses nothing, and `aclose()` ends it.

    Args:
        source: where the items come from: an async generator, or an object whose `__aiter__` makes
            a new iterator whenever it is called. One that is an iterator itself can be read by one
            reader only.
        item_type: what the items are; `RpcStream[float](…)` says it as well. If not given, what the
            method is annotated with counts: `-> RpcStream[float]`.
        ack_period: the reader acknowledges at least every so many items.
        ack_advance: so many items may be under way. 64 and 2048 unless given, for real-time streams
            30 and 61.
        allow_reconnect: whether the stream goes on, with nothing lost or doubled, when the
            connection was lost and made again. Otherwise it fails.
        is_real_time: when the reader is too slow, leave out old items instead of waiting.
        can_skip_to: of a real-time stream, whether one may go on with this item after others were
            left out; for example, whether a frame stands on its own. All items will do unless
            given.

    Raises:
        TypeError: `source` is no async iterable.
        ValueError: `ack_period` is no number from 1 to `ack_advance`.
    """

    __slots__ = (
        "__orig_class__",
        "__weakref__",
        "_is_claimed",
        "_item_type",
        "_iterator",
        "_remote",
        "_source",
        "ack_advance",
        "ack_period",
        "allow_reconnect",
        "can_skip_to",
        "is_real_time",
    )

    ack_period: int
    """The reader acknowledges at least every so many items."""
    ack_advance: int
    """So many items may be under way."""
    allow_reconnect: bool
    """Whether the stream survives the loss of a connection."""
    is_real_time: bool
    """Whether old items are left out when the reader is too slow."""

    def __init__(
        self,
        source: AsyncIterable[T_co],
        *,
        item_type: Any = None,
        ack_period: int | None = None,
        ack_advance: int | None = None,
        allow_reconnect: bool = True,
        is_real_time: bool = False,
        can_skip_to: Callable[[T_co], bool] | None = None,
    ) -> None:
        if not hasattr(source, "__aiter__"):
            raise TypeError(
                f"RpcStream wraps an async iterable, which {source!r} is not. Write an async "
                "generator function, and call it."
            )
        if ack_advance is None:
            ack_advance = ACK_ADVANCE if is_real_time else _ACK_ADVANCE
            ack_advance = max(ack_advance, 2 * (ack_period or 0))
        if ack_period is None:
            ack_period = min(ACK_PERIOD if is_real_time else _ACK_PERIOD, (ack_advance + 1) // 2)
        if not 0 < ack_period <= ack_advance < 2**31:
            raise ValueError(
                f"ack_period is {ack_period} and ack_advance {ack_advance}: the period must be "
                "from 1 to the advance, which must be below 2**31."
            )
        self._source: AsyncIterable[T_co] | None = source
        self._remote: RemoteStream[T_co] | None = None
        self._item_type = item_type
        self._is_claimed = False
        self._iterator: AsyncIterator[T_co] | None = None
        self.ack_period = ack_period
        self.ack_advance = ack_advance
        self.allow_reconnect = allow_reconnect
        self.is_real_time = is_real_time
        self.can_skip_to: Callable[[T_co], bool] | None = can_skip_to

    @classmethod
    def _of(cls, remote: RemoteStream[T_co]) -> RpcStream[T_co]:
        """Return the stream that reads `remote`."""
        stream = cls.__new__(cls)
        reference = remote.reference
        stream._source = None
        stream._remote = remote
        stream._item_type = remote.item_type
        stream._is_claimed = False
        stream._iterator = None
        stream.ack_period = reference.ack_period
        stream.ack_advance = reference.ack_advance
        stream.allow_reconnect = reference.allow_reconnect
        stream.is_real_time = reference.is_real_time
        stream.can_skip_to = None
        return stream

    @property
    def item_type(self) -> Any:
        """What the items are; None if the stream itself does not know."""
        if self._item_type is None:
            called_as = getattr(self, "__orig_class__", None)
            return None if called_as is None else item_type_of(called_as)
        return self._item_type

    @property
    def is_remote(self) -> bool:
        """Whether the source is on the other side."""
        return self._remote is not None

    def __aiter__(self) -> AsyncIterator[T_co]:  # noqa: PYI034 - the iterator ends the stream
        """Begin to read; the stream ends with the iterator.

        Raises:
            InvalidStateError: the stream is, or was, read already.
        """
        if self._remote is not None:
            return self._remote.iterate()
        assert self._source is not None
        return aiter(self._source)

    async def __anext__(self) -> T_co:
        """Return the next item.

        Raises:
            StopAsyncIteration: there are no more.
            InvalidStateError: the stream is read by `async for`, or by another task.
            StreamNotFoundError: the other side does not have the stream any more.
            DisconnectedError: the connection, or the peer behind it, is lost for good.
            Exception: what the source raised.
        """
        if self._remote is not None:
            return await self._remote.next()
        if self._iterator is None:
            self._iterator = self._claim()
        return await anext(self._iterator)

    async def aclose(self) -> None:
        """Stop reading, and tell the other side so; a second call does nothing.

        Where the source is on this side, closes it, unless the other side reads it.
        """
        if self._remote is not None:
            self._remote.leave()
        elif not self._is_claimed:
            await self._close_unread()
        elif self._iterator is not None:
            await _close(self._iterator)

    async def _close_unread(self) -> None:
        """Close the source, unless somebody reads it."""
        if not self._is_claimed and self._source is not None:
            self._is_claimed = True
            await _close(self._source)

    def _claim(self) -> AsyncIterator[T_co]:
        """Begin to read the source for the other side."""
        iterator = aiter(self)
        if self._is_claimed and iterator is self._source:
            raise InvalidStateError(
                "The source of this stream is an iterator, and was read already. To read it more "
                "than once, give RpcStream an object whose __aiter__ makes a new iterator."
            )
        self._is_claimed = True
        return iterator

    def __del__(self) -> None:
        # Reading with `async for` holds the iterator alone; only a stream that is read step by step
        # lasts as long as this object.
        remote = getattr(self, "_remote", None)
        if remote is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so is everything
                remote.dropped()

    def __repr__(self) -> str:
        if self._remote is not None:
            return f"<RpcStream {self._remote.reference.local_id} from {self._remote.table.link!r}>"
        return f"<RpcStream of {self._source!r}>"


async def _close(source: object) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
