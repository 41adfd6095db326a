"""The formats that there are, by the keys that peers choose them with."""

from __future__ import annotations

from importlib.util import find_spec

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
        BinaryFormat("msgpack6-lz4"),
        CompactFormat("msgpack6c-lz4"),
        BinaryFormat("msgpack6-lz4f"),
        CompactFormat("msgpack6c-lz4f"),
    )
}


def get_format(key: str) -> Format:
    """Return the format that is called `key`; the same object each time.

    ``json5np`` and ``json5`` are text; ``msgpack6`` and ``msgpack6c`` are binary. With ``-lz4`` at
    the end, what servers send is compressed; with ``-lz4f``, what clients send as well.

    Raises:
        UnknownFormatError: there is no such format, or what it needs is not installed.
    """
    found = _formats.get(key)
    if found is None:
        raise UnknownFormatError(
            f"Unsupported RPC serialization format: '{key[:40]}'. There are {', '.join(_formats)}."
        )
    if "-lz4" in key and find_spec("lz4") is None:
        raise UnknownFormatError(
            f"The format '{key}' needs lz4, which is not installed: pip install 'afresh[lz4]'."
        )
    return found
