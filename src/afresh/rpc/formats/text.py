"""Text formats: JSON envelopes and JSON values, told apart by control characters.

A frame is made of messages with LF RS between them; a message is an envelope, LF, and the values
with US between them. JSON escapes control characters, so none of these occurs inside.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, Struct

from .format import (
    MAX_HEADERS,
    MAX_MESSAGES,
    TOO_MANY_MESSAGES,
    Format,
    FrameError,
    Headers,
    Incoming,
    Writer,
    check_call_type,
    encode_headers,
    encode_method_name,
)
from .json_codec import JsonCodec
from .sequences import MAXIMUM

__all__ = ["TextFormat"]

SEPARATOR = b"\n\x1e"
NO_HEADERS: tuple[tuple[str, str], ...] = ()


class Envelope(Struct, rename="pascal", gc=False):
    """What precedes the values of a message."""

    method: Annotated[str, Meta(min_length=1, max_length=1024)]
    related_id: Annotated[int, Meta(ge=0)] = 0
    call_type: Annotated[int, Meta(ge=0, le=7)] = 0
    headers: Annotated[list[str], Meta(max_length=2 * MAX_HEADERS)] | None = None


_decode_envelope = msgspec.json.Decoder(Envelope).decode


class TextFormat(Format):
    """Messages and values in JSON."""

    is_text: ClassVar[bool] = True
    _codec_class = JsonCodec

    def method_key(self, name: str) -> Hashable:
        return name

    def method_name(self, key: Hashable) -> str:
        return str(key)

    def writer(self, name: str, call_type: int = 0) -> Writer:
        encode_method_name(name)
        check_call_type(call_type)
        encode = msgspec.json.Encoder().encode
        call_type_member = b',"CallType":%d' % call_type if call_type else b""
        template = b'{"Method":%b%b,"RelatedId":%%d}\n%%b' % (
            encode(name).replace(b"%", b"%%"),
            call_type_member,
        )
        template_with_headers = template.replace(b"}\n", b',"Headers":%b}\n')

        def write(related_id: int, arguments: bytes, headers: Headers = ()) -> bytes:
            if headers:
                encode_headers(headers)
                flat = [part for header in headers for part in header]
                return template_with_headers % (related_id, encode(flat), arguments)
            return template % (related_id, arguments)

        return write

    def join(self, messages: Sequence[bytes]) -> bytes:
        return SEPARATOR.join(messages)

    def decode(self, frame: bytes) -> tuple[list[Incoming], FrameError | None]:
        messages: list[Incoming] = []
        add = messages.append
        try:
            pieces = frame.split(SEPARATOR, MAX_MESSAGES)
            rest = pieces.pop() if len(pieces) > MAX_MESSAGES else b""
            for text in pieces:
                if text:
                    head, line_feed, arguments = text.partition(b"\n")
                    if not line_feed:
                        raise ValueError("there is no line feed after the envelope")
                    envelope = _decode_envelope(head)
                    related_id = envelope.related_id
                    if related_id > MAXIMUM:
                        raise ValueError("the related id has more than 64 bits")
                    headers = envelope.headers
                    add(
                        (
                            envelope.call_type,
                            related_id,
                            envelope.method,
                            arguments,
                            _pairs(headers) if headers else NO_HEADERS,
                        )
                    )
            if rest:
                raise ValueError(TOO_MANY_MESSAGES)
        # Text that is no UTF-8 raises UnicodeDecodeError, a ValueError.
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            return messages, FrameError(
                f"Message {len(messages) + 1} of a frame in {self.key} can't be read: {error}"
            )
        return messages, None


def _pairs(flat: list[str]) -> tuple[tuple[str, str], ...]:
    if len(flat) % 2:
        raise ValueError("a header has no value")
    return tuple(zip(flat[::2], flat[1::2], strict=True))
