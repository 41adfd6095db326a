"""Argument sections of `$sys.I` and `$sys.B`, put together from items that are encoded already.

Items are encoded one by one, as they come: so each has the value that it had then, is encoded
once however often it is sent, and its size is known. What they are encoded with is left to formats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

__all__ = ["MAX_BATCH", "sections_of"]

MAX_BATCH = 1024
"""How many items a message may hold, at most."""

_pack = msgspec.msgpack.Encoder().encode

Sections = Callable[[int, Sequence[bytes]], bytes]
"""Takes the index of the first item and the items, and returns a section: of `$sys.I` for a single
item, of `$sys.B` for more."""


def sections_of(*, is_text: bool) -> Sections:
    """Return the function that puts sections together in a text or a binary format."""
    return _text_section if is_text else _packed_section


def _text_section(index: int, items: Sequence[bytes]) -> bytes:
    if len(items) == 1:
        return b"%d\x1f%b" % (index, items[0])
    return b"%d\x1f[%b]" % (index, b",".join(items))


def _packed_section(index: int, items: Sequence[bytes]) -> bytes:
    count = len(items)
    if count == 1:
        return _pack(index) + items[0]
    header = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return b"".join((_pack(index), header, *items))
