"""Values in JSON: an argument section is JSON texts with US between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from afresh.errors import AfreshError, FormatError

from .codec import NO_DEFAULT, Codec
from .naming import RecordNaming
from .values import has_streams, read_hook, write_hook

__all__ = ["JsonCodec"]


class JsonCodec(Codec):
    """The codec of text formats."""

    __slots__ = ()

    def __init__(
        self,
        types: tuple[Any, ...],
        naming: RecordNaming,
        defaults: tuple[Any, ...],
        *,
        has_markers: bool,
    ) -> None:
        self.types = types
        self.has_streams = has_streams(types)
        encode = msgspec.json.Encoder(enc_hook=write_hook(is_text=True)).encode
        decoders = [msgspec.json.Decoder(type, dec_hook=read_hook).decode for type in types]
        decode_all = (
            msgspec.json.Decoder(tuple[types], dec_hook=read_hook).decode if types else None
        )  # type: ignore[valid-type]
        defaults = defaults or (NO_DEFAULT,) * len(types)

        def encode_one(value: Any) -> bytes:
            try:
                return encode(value)
            except AfreshError:
                raise
            except Exception as error:
                raise FormatError(f"A value can't be written: {error}") from error

        def encode_values(values: Sequence[Any]) -> bytes:
            try:
                return b"\x1f".join([encode(value) for value in values])
            except AfreshError:
                raise
            except Exception as error:
                raise FormatError(f"A value can't be written: {error}") from error

        def decode_values(section: bytes) -> Sequence[Any]:
            if decode_all is None:
                return ()
            try:
                return decode_all(b"[%b]" % section.replace(b"\x1f", b","))
            except Exception:
                return read_each(section)

        def read_each(section: bytes) -> Sequence[Any]:
            texts = section.split(b"\x1f")
            values = []
            for index, (type, decode, default) in enumerate(
                zip(types, decoders, defaults, strict=True)
            ):
                text = texts[index] if index < len(texts) else b""
                try:
                    if text:
                        values.append(decode(text))
                    elif default is not NO_DEFAULT:
                        values.append(default)
                    else:
                        values.append(decode(b"null"))
                except AfreshError:
                    raise
                except Exception as error:
                    raise FormatError(f"A value can't be read: {error}") from error
            return values

        def decode_one(section: bytes) -> Any:
            if types[0] is None:
                return None
            try:
                return decoders[0](section)
            except Exception:
                return read_each(section)[0]

        self.encode = encode_values
        self.decode = decode_values
        self.encode_one = encode_one if types != (None,) else lambda value: b"{}"
        self.decode_one = decode_one
