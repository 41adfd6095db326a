"""Frames, made and read by hand: what another implementation of the protocol would send.

Knows nothing of `afresh`, so that no mistake in there goes unseen.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any, NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

SYSTEM_CALLS = [
    "$sys.Handshake:1",
    "$sys.Reconnect:3",
    "$sys.Ok:1",
    "$sys.Error:1",
    "$sys.Cancel:0",
    "$sys.KeepAlive:1",
    "$sys.Disconnect:1",
    "$sys.Ack:2",
    "$sys.AckEnd:1",
    "$sys.I:2",
    "$sys.B:2",
    "$sys.End:2",
    "$sys-c.Invalidate:0",
]


class Message(NamedTuple):
    """One message of a frame."""

    method: str
    related_id: int
    arguments: list[Any]
    call_type: int = 0


class TextWire:
    """The JSON formats."""

    def encode(self, message: Message) -> str:
        """Make a frame of one message."""
        envelope = {
            "Method": message.method,
            "RelatedId": message.related_id,
            "CallType": message.call_type,
        }
        arguments = "\x1f".join(
            json.dumps(each, separators=(",", ":"), ensure_ascii=False, default=_base64)
            for each in message.arguments
        )
        return json.dumps(envelope, separators=(",", ":")) + "\n" + arguments

    def decode(self, frame: str | bytes) -> list[Message]:
        """Return the messages of a frame."""
        assert isinstance(frame, str), "a JSON format is sent as text"
        messages = []
        for piece in frame.split("\n\x1e"):
            head, _, body = piece.partition("\n")
            envelope = json.loads(head)
            arguments = [json.loads(part) for part in body.split("\x1f")] if body else []
            messages.append(
                Message(
                    envelope["Method"],
                    envelope.get("RelatedId", 0),
                    arguments,
                    envelope.get("CallType", 0),
                )
            )
        return messages


class BinaryWire:
    """The MessagePack formats.

    Args:
        is_compact: whether methods travel as hashes.
    """

    def __init__(self, is_compact: bool) -> None:
        self.is_compact = is_compact
        self.names = {_hash(name): name for name in SYSTEM_CALLS}

    def encode(self, message: Message) -> bytes:
        """Make a frame of one message."""
        name = message.method.encode()
        arguments = b"".join(msgspec.msgpack.encode(each) for each in message.arguments)
        return (
            bytes([message.call_type << 5])
            + _varint(message.related_id)
            + (_hash(message.method) if self.is_compact else _varint(len(name)) + name)
            + struct.pack("<I", len(arguments))
            + arguments
        )

    def decode(self, frame: str | bytes) -> list[Message]:
        """Return the messages of a frame."""
        assert isinstance(frame, bytes), "a MessagePack format is sent as binary"
        messages = []
        position = 0
        while position < len(frame):
            start = frame[position]
            related_id, position = _read_varint(frame, position + 1)
            if self.is_compact:
                hashed = frame[position : position + 4]
                position += 4
                method = self.names.get(hashed, hashed.hex())
            else:
                length, position = _read_varint(frame, position)
                method = frame[position : position + length].decode()
                position += length
            (length,) = struct.unpack_from("<I", frame, position)
            arguments = frame[position + 4 : position + 4 + length]
            position += 4 + length
            for _ in range(start & 31):
                position += 1 + frame[position]
                length, position = _read_varint(frame, position)
                position += length
            messages.append(Message(method, related_id, _values(method, arguments), start >> 5))
        return messages


Wire = TextWire | BinaryWire


def wire_of(format_key: str) -> Wire:
    """Return what writes and reads frames of a format."""
    if format_key.startswith("json5"):
        return TextWire()
    return BinaryWire(format_key == "msgpack6c")


def increasing(numbers: list[int]) -> bytes:
    """Encode ascending numbers as the differences between them."""
    before = [0, *numbers]
    return b"".join(
        _varint(later - earlier) for earlier, later in zip(before, numbers, strict=False)
    )


def read_increasing(data: bytes | str) -> list[int]:
    """Return the numbers in what `increasing` made, or in the base64 form of it."""
    data = base64.b64decode(data) if isinstance(data, str) else data
    numbers: list[int] = []
    position = 0
    while position < len(data):
        step, position = _read_varint(data, position)
        numbers.append(step + (numbers[-1] if numbers else 0))
    return numbers


def _values(method: str, arguments: bytes) -> list[Any]:
    if not (arguments and method.startswith("$sys")):
        return []  # of other methods it is unknown how many values there are
    # Values in a row are an array but for its head. (One that is never sent is counted here.)
    count = 2 if method == "$sys.Reconnect:3" else int(method.rpartition(":")[2])
    values: list[Any] = msgspec.msgpack.decode(bytes([0x90 | count]) + arguments)
    return values


def _hash(name: str) -> bytes:
    text = name.encode()
    data = struct.pack("<I", 67211 * len(text) % 2**32) + text
    return struct.pack("<I", xxh3_64_intdigest(data) % 2**32)


def _varint(number: int) -> bytes:
    result = bytearray()
    while number > 127:
        result.append(number & 127 | 128)
        number >>= 7
    result.append(number)
    return bytes(result)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, position


def _base64(value: object) -> str:
    assert isinstance(value, bytes)
    return base64.b64encode(value).decode()
