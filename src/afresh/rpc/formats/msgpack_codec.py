"""Values in MessagePack: an argument section is the values one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from afresh.errors import AfreshError, FormatError

from .codec import NO_DEFAULT, Codec
from .naming import RecordNaming
from .values import has_streams, read_hook, write_hook

__all__ = ["MsgpackCodec"]


class MsgpackCodec(Codec):
    """The codec of binary formats."""

    __slots__ = ()

    def __init__(
        self, types: tuple[Any, ...], naming: RecordNaming, defaults: tuple[Any, ...]
    ) -> None:
        self.types = types
        self.has_streams = has_streams(types)
        encode = msgspec.msgpack.Encoder(enc_hook=write_hook(is_text=False)).encode
        count = len(types)
        decode_first = (
            msgspec.msgpack.Decoder(types[0], dec_hook=read_hook).decode if types else None
        )
        decode_all = (
            msgspec.msgpack.Decoder(tuple[types], dec_hook=read_hook).decode if types else None
        )  # type: ignore[valid-type]
        header = encode((None,) * count)[:-count] if count else b""
        skipped = len(header)

        def encode_one(value: Any) -> bytes:
            try:
                return encode(value)
            except AfreshError:
                raise
            except Exception as error:
                raise FormatError(f"A value can't be written: {error}") from error

        def encode_values(values: Sequence[Any]) -> bytes:
            try:
                return encode(values)[skipped:]
            except AfreshError:
                raise
            except Exception as error:
                raise FormatError(f"A value can't be written: {error}") from error

        def decode_values(section: bytes) -> Sequence[Any]:
            if decode_all is None:
                return ()
            try:
                return decode_all(header + section)
            except AfreshError:
                raise
            except Exception as error:
                raise FormatError(f"A value can't be read: {error}") from error

        def decode_one(section: bytes) -> Any:
            if types[0] is None:
                return None
            try:
                return decode_first(section)
            except AfreshError:
                raise
            except Exception as error:
                raise FormatError(f"A value can't be read: {error}") from error

        self.encode = encode_values
        self.decode = decode_values
        self.encode_one = encode_one
        self.decode_one = decode_one
