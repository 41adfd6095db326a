"""A WebSocket once it is open, at either end.

Nearly all that travels on it are data frames in one piece; those are read and written here, in a
few lines that cost a fraction of what a general parser does. Everything else (control frames,
fragments, violations, closing) goes to the sans-I/O protocol of the websockets library, which also
did the opening handshake. Receiving takes no task and no queue: what arrives is handed to the
receiver from within `data_received`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from struct import pack, unpack_from
from typing import Final

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from afresh.errors import ConnectionClosedError, UnknownFormatError
from afresh.primitives.clock import Timer, current_clock

from .connection import CLOSE_TIMEOUT, CLOSE_TOO_BIG, CLOSE_UNKNOWN_FORMAT, Receiver
from .reading import ReadingProtocol
from .receiving import ReceivingConnection

try:
    from websockets.speedups import apply_mask
except ImportError:  # the library was built without its C extension
    from websockets.utils import apply_mask

__all__ = ["WebSocketConnection", "cut_reason"]

_WHOLE_TEXT: Final = 0x81
_WHOLE_BINARY: Final = 0x82
_MASKED: Final = 0x80
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_UNSUPPORTED_DATA: Final = 1003
_LONGEST_REASON: Final = 123
_MAX_BUFFERED_FOR_PONGS: Final = 1_048_576
"""A side that reads nothing may go on sending pings; over so many bytes they are not answered."""


def _masks() -> Iterator[bytes]:
    # Asking the operating system for four bytes each time would be the larger part of sending.
    while True:
        pool = os.urandom(4096)
        for start in range(0, len(pool), 4):
            yield pool[start : start + 4]


_next_mask = _masks().__next__


_SHORT_END = 128
_SHORT_HEADS = {
    (whole, is_client): [
        bytes((whole, length - 2 if is_client else _MASKED | (length - 6)))
        if length > (2 if is_client else 6)
        else None
        for length in range(_SHORT_END)
    ]
    for whole in (_WHOLE_TEXT, _WHOLE_BINARY)
    for is_client in (False, True)
}
"""How a data frame in one piece begins that is, head included, so many bytes long; by the byte it
begins with, and whether it goes to a client."""


def cut_reason(reason: str) -> str:
    """Cut the reason of a close code to what a WebSocket can carry."""
    return reason.encode()[:_LONGEST_REASON].decode(errors="ignore")


class WebSocketConnection(ReceivingConnection, ReadingProtocol):
    """An open WebSocket.

    Args:
        receiver: gets the frames.
        protocol: the library's protocol, after a successful handshake, with nothing left to parse.
        transport: the socket; the caller lets it feed `data_received` and `connection_lost`.
    """

    __slots__ = (
        "_buffer",
        "_fragments",
        "_is_client",
        "_is_deaf",
        "_opcode",
        "_protocol",
        "_short_heads",
        "_timer",
        "_transport",
        "_whole",
    )

    def __init__(
        self, receiver: Receiver, protocol: Protocol, transport: asyncio.Transport
    ) -> None:
        super().__init__(receiver)
        self._protocol = protocol
        self._transport = transport
        self._is_client = protocol.side is Side.CLIENT
        self._opcode = Opcode.TEXT if receiver.is_text else Opcode.BINARY
        self._whole = _WHOLE_TEXT if receiver.is_text else _WHOLE_BINARY
        self._short_heads = _SHORT_HEADS[self._whole, self._is_client]
        self._buffer: bytearray | None = None
        """The beginning of a frame whose end has not arrived."""
        self._fragments: bytearray | None = None
        """What arrived of a message that comes in several frames."""
        self._is_deaf = False
        """Whether nothing that arrives matters any more."""
        self._timer: Timer | None = None

    def send(self, frame: bytes) -> None:
        transport = self._transport
        if self._is_over or transport.is_closing():
            return
        length = len(frame)
        if self._is_client:
            mask = _next_mask()
            transport.write(self._header(length, _MASKED) + mask + apply_mask(frame, mask))
        else:
            transport.write(self._header(length, 0) + frame)

    @property
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    # -- called by the event loop

    def data_received(self, data: bytes | bytearray) -> None:
        """Take in what the network brought."""
        if self._is_deaf:
            return
        end = len(data)
        if (
            end < _SHORT_END
            and data[:2] == self._short_heads[end]
            and self._buffer is None
            and self._fragments is None
            and not self._is_over
        ):
            # One short frame and nothing else, as most are.
            self._deliver(bytes(data[2:]) if self._is_client else apply_mask(data[6:], data[2:6]))
            return
        if self._buffer is not None:
            self._buffer += data
            data = self._buffer
            end = len(data)
        position = 0
        mask_size = 0 if self._is_client else 4
        while end - position >= 2:
            flags = data[position + 1]
            length = flags & ~_MASKED
            start = position + 2
            if length >= _TWO_BYTES:
                size = 2 if length == _TWO_BYTES else 8
                if end - start < size:
                    break
                (length,) = unpack_from("!H" if size == 2 else "!Q", data, start)
                start += size
            if length > self.max_frame_size:
                self._protocol.fail(CLOSE_TOO_BIG, "frame too big")
                self._follow_protocol()
                return
            if flags & _MASKED:
                start += 4
            stop = start + length
            if stop > end:
                break
            if (
                data[position] == self._whole
                and flags & _MASKED == mask_size << 5
                and self._fragments is None
            ):
                if not self._is_over:
                    payload = bytes(data[start:stop])
                    if mask_size:
                        payload = apply_mask(payload, data[start - 4 : start])
                    self._deliver(payload)
            elif not self._receive_other(bytes(data[position:stop])):
                return
            position = stop
        if position == end:
            self._buffer = None
        elif self._buffer is None:
            self._buffer = bytearray(data[position:])
        elif position:
            del self._buffer[:position]

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if self._timer is not None:
            self._timer.cancel()
        self._is_deaf = True
        self._lose(exc or ConnectionClosedError())
        self._note_closed()

    # -- inside

    def _header(self, length: int, masked: int) -> bytes:
        if length < _TWO_BYTES:
            return bytes((self._whole, masked | length))
        if length < 65_536:
            return pack("!BBH", self._whole, masked | _TWO_BYTES, length)
        return pack("!BBQ", self._whole, masked | _EIGHT_BYTES, length)

    def _receive_other(self, frame: bytes) -> bool:
        """Let the library handle what is no plain data frame. False if nothing that follows
        matters.
        """
        protocol = self._protocol
        protocol.receive_data(frame)
        for event in protocol.events_received():
            if isinstance(event, Frame) and event.opcode in {Opcode.CONT, self._opcode}:
                self._receive_fragment(event)
            elif isinstance(event, Frame) and event.opcode in {Opcode.TEXT, Opcode.BINARY}:
                expected = self._opcode.name.lower()
                protocol.fail(_UNSUPPORTED_DATA, f"expected a {expected} message")
        self._follow_protocol()
        return not self._is_deaf

    def _receive_fragment(self, frame: Frame) -> None:
        if self._fragments is None:
            self._fragments = bytearray()
        self._fragments += frame.data
        if len(self._fragments) > self.max_frame_size:
            self._fragments = None
            self._protocol.fail(CLOSE_TOO_BIG, "frame too big")
        elif frame.fin:
            message = bytes(self._fragments)
            self._fragments = None
            if not self._is_over:
                self._deliver(message)

    def _follow_protocol(self) -> None:
        """Send what the library wants sent, and close the connection when it did so."""
        protocol = self._protocol
        self._flush()
        if protocol.close_rcvd is not None:
            self._is_deaf = True
            self._lose(_closing_error(protocol.close_rcvd.code, protocol.close_rcvd.reason))
            if self._is_client:  # the server closes the socket
                self._limit_closing()
            else:
                self._transport.close()
        elif protocol.close_sent is not None and not self._is_over:
            # The other side broke the rules. What it still sends is thrown away until it has seen
            # why; closing the socket at once could keep that from it.
            self._is_deaf = True
            self._lose(ConnectionClosedError(protocol.close_sent.code, protocol.close_sent.reason))
            self._limit_closing()
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def _shut_down(self, code: int, reason: str) -> None:
        self._limit_closing()
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, cut_reason(reason))
            self._flush()

    def _flush(self) -> None:
        # The empty piece, with which the library asks for the end of the stream, writes nothing.
        data = b"".join(self._protocol.data_to_send())
        if not data or self._transport.is_closing():
            return
        if self._protocol.state is OPEN and self.buffered > _MAX_BUFFERED_FOR_PONGS:
            return
        self._transport.write(data)

    def _limit_closing(self) -> None:
        if self._timer is None:
            self._timer = current_clock().call_later(CLOSE_TIMEOUT, self._transport.abort)


def _closing_error(code: int, reason: str) -> Exception:
    if code == CLOSE_UNKNOWN_FORMAT:
        return UnknownFormatError(f"{reason}; use a format that the other side allows.")
    return ConnectionClosedError(code, reason)
