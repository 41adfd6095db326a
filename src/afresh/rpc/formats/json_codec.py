"""Values in JSON: an argument section is JSON texts with US between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from afresh.errors import FormatError

from .codec import Codec, Part
from .slots import NULL

__all__ = ["JsonCodec"]

SEPARATOR = b"\x1f"
MARKER = b"/* @="
MARKER_END = b" */"

_decode_any = msgspec.json.Decoder().decode
_decode_exactly = msgspec.json.Decoder(float_hook=Decimal).decode


class JsonCodec(Codec):
    """The codec of text formats."""

    __slots__ = ()

    language = "JSON"

    def _encoder(self, hook: Callable[[Any], Any]) -> Callable[[Any], bytes]:
        return msgspec.json.Encoder(enc_hook=hook, decimal_format="number").encode

    def _decoder(self, annotation: Any, hook: Callable[[Any, Any], Any]) -> Callable[[bytes], Any]:
        return msgspec.json.Decoder(annotation, dec_hook=hook).decode

    def _plain_encode(self) -> Callable[[Sequence[Any]], bytes]:
        encode = self._encode

        def encode_all(values: Sequence[Any]) -> bytes:
            try:
                return SEPARATOR.join([encode(value) for value in values])
            except Exception:
                return self._write(values)

        return encode_all

    def _plain_decode(self, hook: Callable[[Any, Any], Any]) -> Callable[[bytes], Sequence[Any]]:
        if not self.types:
            return lambda section: ()
        decode = self._decoder(tuple[self.types], hook)  # type: ignore[name-defined]
        read = self._read

        def decode_all(section: bytes) -> Sequence[Any]:
            try:
                # Inside values the separator is escaped.
                values: Sequence[Any] = decode(b"[%b]" % section.replace(SEPARATOR, b","))
                return values
            except Exception:
                return read(section)

        return decode_all

    def _nothing(self) -> bytes:
        return b"{}"  # .NET peers refuse null here

    def _join(self, parts: list[bytes]) -> bytes:
        return SEPARATOR.join(parts)

    def _parts(self, section: bytes) -> list[Part]:
        count = len(self._slots)
        # Numbers with a fraction stay exact until it is clear whether a Decimal is wanted.
        decode = _decode_exactly if self._has_decimals else _decode_any
        return [_part(text, decode) for text in section.split(SEPARATOR, count)[:count]]

    def _marker(self, tag: str) -> bytes:
        return b"%b%b%b" % (MARKER, tag.encode(), MARKER_END)


def _part(text: bytes, decode: Callable[[bytes], Any]) -> Part:
    if not text:
        return None, msgspec.UNSET
    if not text.startswith(MARKER):
        return None, decode(text)
    tag, end, value = text[len(MARKER) :].partition(MARKER_END)
    if not end:
        raise FormatError("The comment in front of a value does not end.")
    if tag == NULL.encode():
        return NULL, None
    return tag.decode(), decode(value)
