"""The short way through a WebSocket's frames against the library's own: whatever arrives, and
however it is chopped, both must make the same of it.
"""

from __future__ import annotations

import itertools
import struct
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import OPEN, Protocol, Side

from afresh.errors import ConnectionClosedError
from afresh.primitives.clock import use_clock
from afresh.rpc.transports.connection import CLOSE_TOO_BIG
from afresh.rpc.transports.websocket_connection import WebSocketConnection, cut_reason
from afresh.testing import FakeClock

MAX_SIZE = 300
FLAWS = {1002, 1003}


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Listener:
    def __init__(self, *, is_text: bool) -> None:
        self.is_text = is_text
        self.frames: list[bytes] = []
        self.code: int | None = None

    def connection_made(self, connection: object) -> None: ...

    def frame_received(self, frame: bytes) -> None:
        assert self.code is None
        assert type(frame) is bytes
        self.frames.append(frame)

    def connection_lost(self, error: Exception | None) -> None:
        assert self.code is None
        assert isinstance(error, ConnectionClosedError)
        self.code = error.code


class Outcome(NamedTuple):
    frames: list[bytes]
    code: int | None
    answer: bytes


class Frame(NamedTuple):
    flags: int
    payload: bytes
    is_masked: bool
    size_form: int

    def encode(self) -> bytes:
        length = len(self.payload)
        form = self.size_form
        if length > 125:
            form = max(form, 1)
        head = bytes([self.flags])
        mask_bit = 0x80 if self.is_masked else 0
        if form == 0:
            head += bytes([mask_bit | length])
        elif form == 1:
            head += bytes([mask_bit | 126]) + struct.pack("!H", length)
        else:
            head += bytes([mask_bit | 127]) + struct.pack("!Q", length)
        if not self.is_masked:
            return head + self.payload
        mask = b"\x5a\x00\xff\x21"
        body = bytes(byte ^ key for byte, key in zip(self.payload, itertools.cycle(mask)))
        return head + mask + body


def protocol(side: Side) -> Protocol:
    return Protocol(side, state=OPEN, max_size=None)


def by_connection(side: Side, pieces: list[bytes], *, is_text: bool) -> Outcome:
    listener, wire = Listener(is_text=is_text), Wire()
    transport: Any = wire
    connection = WebSocketConnection(listener, protocol(side), transport)
    connection.max_frame_size = MAX_SIZE
    for piece in pieces:
        connection.data_received(piece)
    return Outcome(listener.frames, listener.code, bytes(wire.written))


def by_library(side: Side, stream: bytes, *, is_text: bool) -> Outcome:
    """What the library alone makes of the stream, given byte by byte."""
    library = Protocol(side, state=OPEN, max_size=MAX_SIZE)
    expected = Opcode.TEXT if is_text else Opcode.BINARY
    frames: list[bytes] = []
    message = b""
    for index in range(len(stream)):
        if library.close_sent is not None:
            break
        library.receive_data(stream[index : index + 1])
        for event in library.events_received():
            assert event is not None
            opcode = event.opcode  # type: ignore[union-attr]
            if opcode in {Opcode.TEXT, Opcode.BINARY} and opcode is not expected:
                library.fail(1003, "")
            elif opcode in {Opcode.CONT, expected}:
                message += bytes(event.data)  # type: ignore[union-attr]
                if event.fin:  # type: ignore[union-attr]
                    frames.append(message)
                    message = b""
    code = None
    if library.close_rcvd is not None:
        code = library.close_rcvd.code
    elif library.close_sent is not None:
        code = library.close_sent.code
    return Outcome(frames, code, b"".join(library.data_to_send()))


opcodes = st.one_of(
    st.sampled_from([0x81, 0x82, 0x82, 0x82, 0x02, 0x00, 0x80, 0x89, 0x8A]),
    st.sampled_from([0x88, 0x01, 0x09, 0x83, 0xC2, 0x0F]),
)
payloads = st.one_of(
    st.binary(max_size=10), st.sampled_from([b"x" * size for size in (125, 126, 127, 300, 301)])
)
frames = st.builds(Frame, opcodes, payloads, st.booleans(), st.integers(0, 2))
proper = st.lists(
    st.builds(
        Frame,
        st.sampled_from([0x81, 0x82, 0x82, 0x89, 0x8A]),
        payloads,
        st.none(),  # type: ignore[arg-type]
        st.integers(0, 2),
    ),
    max_size=8,
)


def code_in(answer: bytes, side: Side) -> list[tuple[int, bytes]]:
    """The control frames that were sent: opcode and payload; of a close frame the code only."""
    found = []
    while answer:
        length = answer[1] & 127
        start = 2
        payload = answer[2 : 2 + length]
        if side is Side.CLIENT:
            mask = answer[2:6]
            start = 6
            payload = bytes(
                byte ^ key for byte, key in zip(answer[6 : 6 + length], itertools.cycle(mask))
            )
        found.append((answer[0], payload[:2] if answer[0] == 0x88 else payload))
        answer = answer[start + length :]
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([Side.CLIENT, Side.SERVER]),
    st.booleans(),
    proper,
    st.lists(frames, max_size=6),
    st.binary(max_size=12),
    st.lists(st.integers(1, 40), min_size=1),
)
async def test_it_makes_the_same_of_any_stream_as_the_library_does(
    side: Side,
    is_text: bool,
    begin: list[Frame],
    middle: list[Frame],
    garbage: bytes,
    steps: list[int],
) -> None:
    masked = side is Side.SERVER
    begin = [frame._replace(is_masked=masked) for frame in begin]
    stream = b"".join(frame.encode() for frame in begin + middle) + garbage
    pieces, position = [], 0
    for step in itertools.cycle(steps):
        pieces.append(stream[position : position + step])
        position += step
        if position >= len(stream):
            break
    with use_clock(FakeClock()):
        got = by_connection(side, pieces, is_text=is_text)
        at_once = by_connection(side, [stream], is_text=is_text)
    expected = by_library(side, stream, is_text=is_text)
    assert got == at_once or side is Side.CLIENT
    assert got.frames == at_once.frames == expected.frames
    # The library looks at a header before the frame is whole; so it may object earlier.
    if got.code is not None and got.code != expected.code:
        # Of a frame with two flaws, either may be named.
        assert CLOSE_TOO_BIG in {got.code, expected.code} < {CLOSE_TOO_BIG, *FLAWS}
    elif got.code is not None:
        assert got.code == at_once.code
        assert code_in(got.answer, side) == code_in(expected.answer, side)


@given(st.text(), st.sampled_from([Side.CLIENT, Side.SERVER]), st.integers(0, 70_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_library_reads_what_it_writes(text: str, side: Side, size: int) -> None:
    for is_text in (True, False):
        frame = text.encode() + b"x" * size
        wire: Any = Wire()
        WebSocketConnection(Listener(is_text=is_text), protocol(side), wire).send(frame)
        other = protocol(Side.SERVER if side is Side.CLIENT else Side.CLIENT)
        other.receive_data(bytes(wire.written))
        (event,) = other.events_received()
        assert event.data == frame  # type: ignore[union-attr]
        assert event.opcode is (Opcode.TEXT if is_text else Opcode.BINARY)  # type: ignore[union-attr]


@given(st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_reason_is_cut_between_characters(reason: str) -> None:
    cut = cut_reason(reason)
    assert reason.startswith(cut)
    assert len(cut.encode()) <= 123
    assert cut == reason or len(cut.encode()) > 119
