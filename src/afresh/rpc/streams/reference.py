"""References: what stands for a stream inside a message, and which table it belongs to meanwhile.

Formats call `to_wire` and `from_wire` for each `RpcStream` among the values they write and read,
and know nothing else of streams. Whose streams those are is known to whoever codes the message, and
that says so with `coding`. Items and acknowledgements are no business of this module.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from afresh.errors import FormatError, InvalidStateError

from .item_types import item_type_of, item_type_within

if TYPE_CHECKING:
    from .stream import RpcStream
    from .table import StreamTable

__all__ = ["ACK_ADVANCE", "ACK_PERIOD", "StreamReference", "coding", "from_wire", "to_wire"]

ACK_PERIOD = 30
"""How often a consumer acknowledges, in items, where a reference does not say."""
ACK_ADVANCE = 61
"""How many items may follow the last acknowledged one, where a reference does not say."""

_LARGEST = 2**63 - 1


class StreamReference(NamedTuple):
    """Which stream it is, and the rules that its owner made for it."""

    host_id: uuid.UUID
    """The peer that owns the stream."""
    local_id: int
    """The number of the stream there."""
    ack_period: int = ACK_PERIOD
    """The consumer acknowledges at least every so many items."""
    ack_advance: int = ACK_ADVANCE
    """The owner sends at most so many items beyond the last acknowledged one."""
    allow_reconnect: bool = True
    """Whether the stream goes on when the connection was lost and made again."""
    is_real_time: bool = False
    """Whether the owner may leave out items that the consumer is too slow for."""

    def to_text(self) -> str:
        """Return the form used in text formats."""
        return (
            f"{self.host_id},{self.local_id},{self.ack_period},{self.ack_advance},"
            f"{self.allow_reconnect:d},{self.is_real_time:d}"
        )

    def to_map(self) -> dict[str, Any]:
        """Return the form used in binary formats."""
        return {
            "AckPeriod": self.ack_period,
            "AckAdvance": self.ack_advance,
            "AllowReconnect": self.allow_reconnect,
            "IsRealTime": self.is_real_time,
            "SerializedId": [str(self.host_id), self.local_id],
        }

    @classmethod
    def parse(cls, data: object) -> StreamReference:
        """Read either form.

        Raises:
            FormatError: it is no reference.
        """
        try:
            if isinstance(data, str):
                host_id, *rest = data.split(",")
                if not 3 <= len(rest) <= 5:
                    raise ValueError
                local_id, period, advance = map(int, rest[:3])
                allow_reconnect = rest[3] != "0" if len(rest) > 3 else True
                is_real_time = rest[4] == "1" if len(rest) > 4 else False
            elif isinstance(data, dict):
                host_id, local_id = data["SerializedId"]
                period = data.get("AckPeriod", ACK_PERIOD)
                advance = data.get("AckAdvance", ACK_ADVANCE)
                allow_reconnect = bool(data.get("AllowReconnect", True))
                is_real_time = bool(data.get("IsRealTime", False))
            else:
                raise TypeError
            numbers = local_id, period, advance
            if not all(type(number) is int and 0 < number <= _LARGEST for number in numbers):
                raise ValueError
            host = uuid.UUID(host_id)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise FormatError(
                f"{_shortened(data)} is no reference to a stream. Both sides have to declare the "
                "value as RpcStream[…]."
            ) from None
        return cls(host, local_id, period, advance, allow_reconnect, is_real_time)


def _shortened(data: object) -> str:
    text = repr(data) if isinstance(data, str | int | float | None) else type(data).__name__
    return text if len(text) <= 100 else f"{text[:100]}…"


_table: StreamTable | None = None
_annotations: tuple[Any, ...] = ()


class coding:  # noqa: N801 - reads as a statement: `with coding(table):`
    """While the block runs, streams among the values written and read belong to `table`.

    Coding is synchronous: the block must not await.

    Args:
        table: the streams of the peer.
        annotations: the types of the values that are written. Streams that do not know the type of
            their items have it from there.
    """

    __slots__ = ("_annotations", "_previous", "_table")

    def __init__(self, table: StreamTable, annotations: tuple[Any, ...] = ()) -> None:
        self._table = table
        self._annotations = annotations

    def __enter__(self) -> None:
        global _table, _annotations
        self._previous = _table, _annotations
        _table, _annotations = self._table, self._annotations

    def __exit__(self, *error: object) -> None:
        global _table, _annotations
        _table, _annotations = self._previous


def to_wire(stream: RpcStream[Any]) -> str | dict[str, Any]:
    """Share a stream with the other side and return what stands for it in a message.

    Raises:
        InvalidStateError: no message to a peer is being written.
        LimitError: the peer has too many streams.
    """
    if _table is None:
        raise InvalidStateError(
            "A stream can only be written into a message to another peer: return it from a "
            "method, or pass it to one. Streams within the items of another one need that to know "
            "its item_type."
        )
    item_type = stream.item_type
    if item_type is None:
        item_type = item_type_within(_annotations)
    reference = _table.share(stream, item_type)
    return reference.to_text() if _table.link.format.is_text else reference.to_map()


def from_wire(annotation: Any, data: object) -> RpcStream[Any]:
    """Return the stream that `data`, found in a message, stands for.

    Args:
        annotation: how the value is declared: `RpcStream[T]`.
        data: a reference in text or map form; "" stands for a stream without items.

    Raises:
        FormatError: `data` is no reference.
        InvalidStateError: no message of a peer is being read.
    """
    if _table is None:
        raise InvalidStateError("A stream can only be read from a message of another peer.")
    return _table.open(
        None if data == "" else StreamReference.parse(data), item_type_of(annotation)
    )
