"""Codecs: argument sections, which are one or more values in a row, and the values in them.

What is common to all formats is here. A codec is made once for some types and used for every
message, so all that can be decided beforehand is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final

__all__ = ["NO_DEFAULT", "Codec"]

NO_DEFAULT: Final[Any] = inspect.Parameter.empty
"""Stands among defaults for a value that has none."""


class Codec:
    """Writes and reads argument sections with one value for each of some types.

    Sections with a single value, results and items of streams, have functions of their own.

    All of the functions raise `FormatError` when a value can't be written or read.
    """

    __slots__ = ("decode", "decode_one", "encode", "encode_one", "has_streams", "types")

    types: tuple[Any, ...]
    """The annotations of the values."""
    has_streams: bool
    """Whether values may hold an `RpcStream`: then the caller codes within `coding(table)`."""
    encode: Callable[[Sequence[Any]], bytes]
    """Takes a value for each type, and returns the section."""
    decode: Callable[[bytes], Sequence[Any]]
    """Takes a section, and returns a value for each type. A value that is missing at the end is its
    default, or else None if the type allows that; values in surplus are left out."""
    encode_one: Callable[[Any], bytes]
    """Takes the only value, and returns the section."""
    decode_one: Callable[[bytes], Any]
    """Takes a section, and returns the only value."""
