"""Frames over a stream socket: a Unix domain socket, or TCP between processes of one host.

Each frame follows its length, in four bytes with the least significant first. Where the highest bit
of the length is set, the frame is a notice of closing: a code in two bytes, and a text. The
client's first frame says who it is, in JSON; the server answers with an empty frame, or with a
notice that says why not: a WebSocket close code, or an HTTP status.

How a connection is opened is left to `unix` and `unix_server`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Final

import msgspec

from afresh.errors import ConnectionClosedError, LimitError
from afresh.primitives.clock import Timer, current_clock

from .connection import CLOSE_INTERNAL_ERROR, CLOSE_TIMEOUT, CLOSE_TOO_BIG, Receiver
from .reading import ReadingProtocol
from .receiving import ReceivingConnection

__all__ = [
    "MAX_GREETING",
    "Greeting",
    "SocketConnection",
    "framed",
    "notice",
    "read_greeting",
    "read_notice",
    "take_frame",
]

_NOTICE: Final = 1 << 31
_LENGTH: Final = Struct("<I")
_CODE: Final = Struct("<H")

MAX_GREETING: Final = 16_384
"""The largest frame while a connection is opened, in bytes."""


class Greeting(msgspec.Struct, rename="camel"):
    """The client's first frame."""

    client_id: str
    format: str | None = None
    proof: tuple[str, str] | None = None
    parameters: dict[str, str] = {}


read_greeting: Callable[[bytes], Greeting] = msgspec.json.Decoder(Greeting).decode
"""Read the client's first frame. Raises `msgspec.DecodeError`."""


def framed(frame: bytes) -> bytes:
    """Put the length before a frame."""
    return _LENGTH.pack(len(frame)) + frame


def notice(code: int, reason: str) -> bytes:
    """Return the last frame of one side: why it closes the connection."""
    body = _CODE.pack(code) + reason.encode()[:MAX_GREETING]
    return _LENGTH.pack(_NOTICE | len(body)) + body


def take_frame(buffer: bytearray, limit: int) -> tuple[bool, bytes] | None:
    """Take the first frame out of the buffer: whether it is a notice, and its body.

    Raises:
        LimitError: it is larger than `limit` bytes.
    """
    if len(buffer) < _LENGTH.size:
        return None
    (header,) = _LENGTH.unpack_from(buffer)
    size = header & ~_NOTICE
    if size > limit:
        raise LimitError(f"A frame of {size} bytes arrived; the limit is {limit}.")
    end = _LENGTH.size + size
    if len(buffer) < end:
        return None
    with memoryview(buffer) as view:
        body = bytes(view[_LENGTH.size : end])
    del buffer[:end]
    return header >= _NOTICE, body


def read_notice(body: bytes) -> tuple[int, str]:
    """Read such a frame: code and reason."""
    if len(body) < _CODE.size:
        return CLOSE_INTERNAL_ERROR, ""
    return _CODE.unpack_from(body)[0], body[_CODE.size :].decode(errors="replace")


class SocketConnection(ReceivingConnection, ReadingProtocol):
    """An open connection, at either end."""

    __slots__ = ("_buffer", "_forget", "_timer", "_transport")

    def __init__(
        self,
        receiver: Receiver,
        transport: asyncio.Transport,
        forget: Callable[[SocketConnection], object] | None = None,
    ) -> None:
        super().__init__(receiver)
        self._transport = transport
        self._forget = forget
        self._buffer = bytearray()
        self._timer: Timer | None = None

    def send(self, frame: bytes) -> None:
        if not (self._is_over or self._transport.is_closing()):
            self._transport.write(framed(frame))

    @property
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            # Once it is over, it is read on only to see the other side close.
            while not self._is_over:
                frame = take_frame(self._buffer, self.max_frame_size)
                if frame is None:
                    return
                is_notice, body = frame
                if is_notice:
                    self._lose(ConnectionClosedError(*read_notice(body)))
                    self._transport.close()
                else:
                    self._deliver(body)
        except LimitError:
            self._refuse(CLOSE_TOO_BIG, "frame too big")
        self._buffer.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._forget is not None:
            self._forget(self)
        self._lose(exc or ConnectionClosedError())
        self._note_closed()

    def _shut_down(self, code: int, reason: str) -> None:
        self._timer = current_clock().call_later(CLOSE_TIMEOUT, self._transport.abort)
        if not self._transport.is_closing():
            # Only the other side closes the socket: with something unread in it, closing it here
            # could take the notice back.
            self._transport.write(notice(code, reason))
            self._transport.write_eof()
