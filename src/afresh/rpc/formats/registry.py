"""The formats that there are, by the keys that peers choose them with."""

from __future__ import annotations

from afresh.errors import UnknownFormatError

from .binary import BinaryFormat, CompactFormat
from .format import Format
from .text import TextFormat

__all__ = ["get_format"]

_formats: dict[str, Format] = {
    each.key: each
    for each in (
        TextFormat("json5np", has_markers=False),
        TextFormat("json5"),
        BinaryFormat("msgpack6"),
        CompactFormat("msgpack6c"),
    )
}


def get_format(key: str) -> Format:
    """Return the format that is called `key`; the same object each time.

    Raises:
        UnknownFormatError: there is no such format.
    """
    found = _formats.get(key)
    if found is None:
        raise UnknownFormatError(
            f"Unsupported RPC serialization format: '{key[:40]}'. There are {', '.join(_formats)}."
        )
    return found
