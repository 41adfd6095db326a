"""Values in MessagePack: an argument section is the values one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import xxhash

from afresh.errors import FormatError

from .codec import Codec, Part
from .slots import DECLARED, NULL

__all__ = ["MsgpackCodec"]

MAX_SCANNED = 1 << 20
"""How long a section with more or fewer values than expected may be: these are looked through byte
by byte, which must not take long."""

_decode_any = msgspec.msgpack.Decoder().decode


class MsgpackCodec(Codec):
    """The codec of binary formats."""

    __slots__ = ()

    language = "MessagePack"

    def _encoder(self, hook: Callable[[Any], Any]) -> Callable[[Any], bytes]:
        return msgspec.msgpack.Encoder(enc_hook=hook).encode

    def _decoder(self, annotation: Any, hook: Callable[[Any, Any], Any]) -> Callable[[bytes], Any]:
        return msgspec.msgpack.Decoder(annotation, dec_hook=hook).decode

    def _plain_encode(self) -> Callable[[Sequence[Any]], bytes]:
        encode = self._encode
        # Together the values are an array, and the section is what follows its header.
        start = len(array_header(len(self.types)))

        def encode_all(values: Sequence[Any]) -> bytes:
            try:
                return encode(values)[start:]
            except Exception:
                return self._write(values)

        return encode_all

    def _plain_decode(self, hook: Callable[[Any, Any], Any]) -> Callable[[bytes], Sequence[Any]]:
        if not self.types:
            return lambda section: ()
        decode = self._decoder(tuple[self.types], hook)  # type: ignore[name-defined]
        header = array_header(len(self.types))
        read = self._read

        def decode_all(section: bytes) -> Sequence[Any]:
            try:
                values: Sequence[Any] = decode(header + section)
                return values
            except Exception:
                return read(section)

        return decode_all

    def _nothing(self) -> bytes:
        return b"\xc0"

    def _join(self, parts: list[bytes]) -> bytes:
        return b"".join(parts)

    def _parts(self, section: bytes) -> list[Part]:
        if not any(slot.is_marked for slot in self._slots):
            try:
                values = _decode_any(array_header(len(self._slots)) + section)
            except msgspec.DecodeError:
                if len(section) > MAX_SCANNED:
                    raise
            else:
                return [(None, value) for value in values]
        parts: list[Part] = []
        position = 0
        for slot in self._slots:
            if position >= len(section):
                break
            tag = None
            if slot.is_marked:
                tag, position = _read_marker(section, position)
                if tag == NULL:
                    parts.append((NULL, None))
                    continue
            start, position = position, value_end(section, position)
            parts.append((tag, _decode_any(section[start:position])))
        return parts

    def _marker(self, tag: str) -> bytes:
        if tag == DECLARED:
            return b"\0\0"
        if tag == NULL:
            return b"\1\0"
        name = tag.encode()
        return b"%b%b%b" % (len(name).to_bytes(2, "little"), _marker_hash(name), name)


def array_header(count: int) -> bytes:
    """Return what precedes the items of an array."""
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big")


def _marker_hash(name: bytes) -> bytes:
    return (xxhash.xxh3_64_intdigest(name) & 0xFFFF).to_bytes(2, "little")


def _read_marker(section: bytes, position: int) -> tuple[str | None, int]:
    """Return the tag of a marker and the position after it; None and the same one without it.

    TypeScript peers send none. No record and no array begins as the short markers do, and a name is
    told by its hash.
    """
    start = position + 4
    size = int.from_bytes(section[position : position + 2], "little")
    if size < 2:
        return (NULL if size else DECLARED), position + 2
    name = section[start : start + size]
    if section[position + 2 : start] == _marker_hash(name):
        return name.decode(), start + size
    return None, position


# What follows the first byte of a value, by that byte, from 0xC0 on: how many bytes of it there are
# in any case, or how many bytes tell how many (with these: of bytes, of items, or of pairs).
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8}
_FIXED |= {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_SIZED |= {0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_COUNTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def value_end(data: bytes, position: int) -> int:
    """Return where the value that begins at `position` ends.

    Raises:
        FormatError: the data ends before, or there is no value.
    """
    end = len(data)
    pending = 1
    while pending:
        if position >= end:
            raise FormatError("The data ends within a value.")
        pending -= 1
        first = data[position]
        position += 1
        if first < 0x80 or first >= 0xE0:
            continue
        if first < 0x90:
            pending += 2 * (first & 0x0F)
        elif first < 0xA0:
            pending += first & 0x0F
        elif first < 0xC0:
            position += first & 0x1F
        elif first in _FIXED:
            position += _FIXED[first]
        elif first in _SIZED:
            width, extra = _SIZED[first]
            position += width + extra + int.from_bytes(data[position : position + width], "big")
        elif first in _COUNTED:
            width, each = _COUNTED[first]
            pending += each * int.from_bytes(data[position : position + width], "big")
            position += width
        else:
            raise FormatError("A byte of the data begins no value.")
    if position > end:
        raise FormatError("The data ends within a value.")
    return position
