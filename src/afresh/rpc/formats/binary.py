"""Binary formats: a few bytes of envelope, then the values, in MessagePack, one after the other.

| bytes | content |
|---|---|
| 1 | call type (3 bits) and number of headers (5 bits) |
| 1 to 10 | related id, a varuint |
| 1 to 2 + n, or 4 | the method: its name after its length, or in compact formats its hash |
| 4 | length of the argument section |
| n | the argument section |
| for each header | length (1 byte) and key, length (a varuint) and value |
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import ClassVar

from afresh.errors import FormatError

from .format import (
    MAX_HEADER_VALUE,
    MAX_MESSAGES,
    MAX_METHOD_NAME,
    TOO_MANY_MESSAGES,
    Compression,
    Format,
    FrameError,
    Headers,
    Incoming,
    Writer,
    check_call_type,
    encode_headers,
    encode_method_name,
)
from .hashes import method_hash
from .msgpack_codec import MsgpackCodec
from .sequences import BYTES, decode_varuint, encode_varuint

__all__ = ["BinaryFormat", "CompactFormat"]

NO_HEADERS: tuple[tuple[str, str], ...] = ()
# The lengths of short argument sections, as they are written.
LENGTHS = [length.to_bytes(4, "little") for length in range(1024)]

_join = b"".join
_encode_high = lru_cache(64)(encode_varuint)
_read_length = struct.Struct("<I").unpack_from
_read_hash_and_length = struct.Struct("<II").unpack_from


class BinaryFormat(Format):
    """Messages that name their methods, with values in MessagePack."""

    is_text: ClassVar[bool] = False
    _codec_class = MsgpackCodec

    def compression(self, *, is_server: bool) -> Compression | None:
        kind = self.key.partition("-")[2]
        if not kind:
            return None
        from .compression import Lz4Compression

        is_full = kind == "lz4f"
        return Lz4Compression(sends=is_server or is_full, receives=not is_server or is_full)

    def method_key(self, name: str) -> Hashable:
        return name.encode()

    def method_name(self, key: Hashable) -> str:
        return key.decode(errors="replace") if isinstance(key, bytes) else str(key)

    def writer(self, name: str, call_type: int = 0) -> Writer:
        encoded = encode_method_name(name)
        return _writer(call_type, encode_varuint(len(encoded)) + encoded)

    def join(self, messages: Sequence[bytes]) -> bytes:
        return _join(messages)

    def decode(self, frame: bytes) -> tuple[list[Incoming], FrameError | None]:
        messages: list[Incoming] = []
        add = messages.append
        end = len(frame)
        stop = 0
        try:
            for _ in repeat(None, MAX_MESSAGES):
                if stop >= end:
                    break
                first = frame[stop]
                related_id = frame[stop + 1]
                position = stop + 2
                if related_id > 0x7F:
                    second = frame[position]
                    if second < 0x80:
                        related_id += (second - 1) << 7
                        position += 1
                    else:
                        related_id, position = _read_long_id(frame, position - 1)
                size = frame[position]
                position += 1
                if size > 0x7F:
                    size, position = decode_varuint(frame, position - 1)
                    if size > MAX_METHOD_NAME:
                        raise FormatError(f"the method's name is {size} bytes long")
                name_end = position + size
                (length,) = _read_length(frame, name_end)
                start = name_end + 4
                stop = start + length
                if stop > end:
                    raise FormatError("the argument section ends beyond the frame")
                headers = NO_HEADERS
                if first & 31:
                    headers, stop = _read_headers(frame, stop, first & 31)
                add(
                    (
                        first >> 5,
                        related_id,
                        frame[position:name_end],
                        frame[start : start + length],
                        headers,
                    )
                )
            if stop < end:
                raise FormatError(TOO_MANY_MESSAGES)
        except (FormatError, IndexError, struct.error) as error:
            return messages, _frame_error(self.key, messages, error)
        return messages, None


class CompactFormat(BinaryFormat):
    """Messages that tell their methods by a hash of the name, with values in MessagePack."""

    def __init__(self, key: str, *, has_markers: bool = True) -> None:
        super().__init__(key, has_markers=has_markers)
        self._names: dict[Hashable, str] = {}

    def method_key(self, name: str) -> Hashable:
        key = method_hash(name)
        self._names[key] = name
        return key

    def method_name(self, key: Hashable) -> str:
        name = self._names.get(key)
        return f"Service.Method<{key:08x}>" if name is None else name

    def writer(self, name: str, call_type: int = 0) -> Writer:
        encode_method_name(name)
        return _writer(call_type, method_hash(name).to_bytes(4, "little"))

    def decode(self, frame: bytes) -> tuple[list[Incoming], FrameError | None]:
        messages: list[Incoming] = []
        add = messages.append
        end = len(frame)
        stop = 0
        try:
            for _ in repeat(None, MAX_MESSAGES):
                if stop >= end:
                    break
                first = frame[stop]
                related_id = frame[stop + 1]
                position = stop + 2
                if related_id > 0x7F:
                    second = frame[position]
                    if second < 0x80:
                        related_id += (second - 1) << 7
                        position += 1
                    else:
                        related_id, position = _read_long_id(frame, position - 1)
                method, length = _read_hash_and_length(frame, position)
                start = position + 8
                stop = start + length
                if stop > end:
                    raise FormatError("the argument section ends beyond the frame")
                headers = NO_HEADERS
                if first & 31:
                    headers, stop = _read_headers(frame, stop, first & 31)
                add((first >> 5, related_id, method, frame[start : start + length], headers))
            if stop < end:
                raise FormatError(TOO_MANY_MESSAGES)
        except (FormatError, IndexError, struct.error) as error:
            return messages, _frame_error(self.key, messages, error)
        return messages, None


def _writer(call_type: int, method: bytes) -> Writer:
    check_call_type(call_type)
    first = BYTES[call_type << 5]

    def write(related_id: int, arguments: bytes, headers: Headers = ()) -> bytes:
        size = len(arguments)
        length = LENGTHS[size] if size < 1024 else size.to_bytes(4, "little")
        if headers:
            return _with_headers(call_type, related_id, (method, length, arguments), headers)
        if related_id < 0x80:
            return _join((first, BYTES[related_id], method, length, arguments))
        if related_id < 0x4000:
            middle = BYTES[related_id >> 7]
            return _join(
                (first, BYTES[related_id & 0x7F | 0x80], middle, method, length, arguments)
            )
        return _join(
            (
                first,
                BYTES[related_id & 0x7F | 0x80],
                BYTES[related_id >> 7 & 0x7F | 0x80],
                # The same for sixteen thousand ids in a row.
                _encode_high(related_id >> 14),
                method,
                length,
                arguments,
            )
        )

    return write


def _with_headers(
    call_type: int, related_id: int, parts: tuple[bytes, ...], headers: Headers
) -> bytes:
    encoded = encode_headers(headers)
    head = BYTES[call_type << 5 | len(encoded)]
    tail = [
        part
        for key, value in encoded
        for part in (BYTES[len(key)], key, encode_varuint(len(value)), value)
    ]
    return _join((head, encode_varuint(related_id), *parts, *tail))


def _read_long_id(frame: bytes, position: int) -> tuple[int, int]:
    """Read an id of three bytes or more; those of three in line, since most ids are such."""
    third = frame[position + 2]
    if third < 0x80:
        low = frame[position] & 0x7F | (frame[position + 1] & 0x7F) << 7
        return low | third << 14, position + 3
    return decode_varuint(frame, position)


def _read_headers(
    frame: bytes, position: int, count: int
) -> tuple[tuple[tuple[str, str], ...], int]:
    headers = []
    end = len(frame)
    for _ in range(count):
        start = position + 1
        key_end = start + frame[position]
        size, position = decode_varuint(frame, key_end)
        value_start, position = position, position + size
        if size > MAX_HEADER_VALUE or position > end:
            raise FormatError(f"the value of a header is {size} bytes long")
        headers.append(
            (
                frame[start:key_end].decode(errors="replace"),
                frame[value_start:position].decode(errors="replace"),
            )
        )
    return tuple(headers), position


def _frame_error(key: str, messages: list[Incoming], error: Exception) -> FrameError:
    reason = str(error) if isinstance(error, FormatError) else "the frame ends within it"
    return FrameError(f"Message {len(messages) + 1} of a frame in {key} can't be read: {reason}")
