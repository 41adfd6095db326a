"""Codecs: argument sections, which are one or more values in a row, and the values in them.

What all formats have in common is here. A codec is made once for some types and used for every
message, so what can be decided beforehand is. Where msgspec alone can do the work, it does; else,
and whenever it refuses what came, values are converted one by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import msgspec
from msgspec import inspect as shape

from afresh.errors import AfreshError, FormatError

from .reading import ValueReader
from .slots import NO_DEFAULT, NULL, Slot
from .types import is_stream, needs_conversion, reachable, shape_of
from .writing import ValueWriter

__all__ = ["Codec"]

Part: TypeAlias = tuple[str | None, Any]
"""What a section holds for one type: the tag of the marker, if there is one, and what was decoded,
`msgspec.UNSET` for nothing at all."""


class Codec(ABC):
    """Writes and reads argument sections with one value for each of some types.

    Sections with a single value, such as results, have functions of their own; these are there
    whenever there is a single type.

    All of the functions raise `FormatError` when a value can't be written or read.
    """

    __slots__ = (
        "_encode",
        "_has_decimals",
        "_slots",
        "decode",
        "decode_one",
        "encode",
        "encode_item",
        "encode_one",
        "has_streams",
        "types",
    )

    language: ClassVar[str]
    """What values are written in."""
    types: tuple[Any, ...]
    """The annotations of the values."""
    has_streams: bool
    """Whether values may hold an `RpcStream`: then the caller codes within `coding(table)`."""
    encode: Callable[[Sequence[Any]], bytes]
    """Takes a value for each type, and returns the section."""
    decode: Callable[[bytes], Sequence[Any]]
    """Takes a section, and returns a value for each type. One that is missing at the end is its
    default, or else None if the type allows that; values in surplus are left out."""
    encode_one: Callable[[Any], bytes]
    """Takes the only value, and returns the section."""
    encode_item: Callable[[Any], bytes]
    """Takes the only value, and returns what stands for it as one item among others."""
    decode_one: Callable[[bytes], Any]
    """Takes a section, and returns the only value."""

    def __init__(
        self,
        types: tuple[Any, ...],
        defaults: Sequence[Any],
        reader: ValueReader,
        writer: ValueWriter,
        *,
        has_markers: bool,
    ) -> None:
        within = reachable(map(shape_of, types))
        self.types = types
        self.has_streams = any(
            isinstance(each, shape.CustomType) and is_stream(each.cls) for each in within
        )
        self._has_decimals = any(isinstance(each, shape.DecimalType) for each in within)
        self._slots = [
            Slot(annotation, default, reader, writer, has_markers=has_markers)
            for annotation, default in zip(
                types, defaults or [NO_DEFAULT] * len(types), strict=True
            )
        ]
        self._encode = self._encoder(writer.hook)
        is_plain = not any(needs_conversion(each, reader.naming) for each in within)
        self.encode = self._plain_encode() if is_plain else self._write
        self.decode = self._plain_decode(reader.hook) if is_plain else self._read
        if len(types) == 1:
            self._code_single(reader.hook, is_plain=is_plain)

    def _code_single(self, hook: Callable[[Any, Any], Any], *, is_plain: bool) -> None:
        encode = self._encode
        (annotation,) = self.types
        (slot,) = self._slots
        if annotation is None or annotation is type(None):
            nothing = self._nothing()
            self.encode_one = self.encode_item = lambda value: nothing
            self.decode_one = lambda section: None
            return

        def encode_plainly(value: Any) -> bytes:
            try:
                return encode(value)
            except AfreshError:
                raise
            except Exception as error:
                raise self._unwritable(error) from error

        def encode_item(value: Any) -> bytes:
            try:
                return encode(value if slot.render is None else slot.render(value))
            except AfreshError:
                raise
            except Exception as error:
                raise self._unwritable(error) from error

        read = self._read
        decode = self._decoder(annotation, hook)

        def decode_plainly(section: bytes) -> Any:
            try:
                return decode(section)
            except Exception:
                return read(section)[0]

        if is_plain:
            self.encode = lambda values: encode_plainly(*values)
            self.decode = lambda section: (decode_plainly(section),)
            self.encode_one = self.encode_item = encode_plainly
            self.decode_one = decode_plainly
        else:
            self.encode_one = lambda value: self._write((value,))
            self.encode_item = encode_item
            self.decode_one = lambda section: read(section)[0]

    # -- what languages do

    @abstractmethod
    def _encoder(self, hook: Callable[[Any], Any]) -> Callable[[Any], bytes]:
        """Return what writes one value."""

    @abstractmethod
    def _decoder(self, annotation: Any, hook: Callable[[Any, Any], Any]) -> Callable[[bytes], Any]:
        """Return what reads one value."""

    @abstractmethod
    def _plain_encode(self) -> Callable[[Sequence[Any]], bytes]:
        """Return what writes sections whose values need no conversion."""

    @abstractmethod
    def _plain_decode(self, hook: Callable[[Any, Any], Any]) -> Callable[[bytes], Sequence[Any]]:
        """Return what reads sections whose values need no conversion."""

    @abstractmethod
    def _nothing(self) -> bytes:
        """Return what a method without a result returns."""

    @abstractmethod
    def _join(self, parts: list[bytes]) -> bytes:
        """Return the section that is made of these values."""

    @abstractmethod
    def _parts(self, section: bytes) -> list[Part]:
        """Take a section apart, as far as there are slots; what is missing is left out."""

    @abstractmethod
    def _marker(self, tag: str) -> bytes:
        """Return the marker with a tag."""

    # -- one by one

    def _write(self, values: Sequence[Any]) -> bytes:
        parts = []
        try:
            for slot, value in zip(self._slots, values, strict=True):
                if slot.is_marked:
                    tag, rendered = slot.render_marked(value)
                    parts.append(self._marker(tag))
                    if tag != NULL:
                        parts[-1] += self._encode(rendered)
                else:
                    parts.append(self._encode(value if slot.render is None else slot.render(value)))
        except AfreshError:
            raise
        except Exception as error:
            raise self._unwritable(error) from error
        return self._join(parts)

    def _read(self, section: bytes) -> Sequence[Any]:
        values: list[Any] = []
        try:
            parts = self._parts(section)
            for slot in self._slots:
                tag, data = (
                    parts[len(values)] if len(values) < len(parts) else (None, msgspec.UNSET)
                )
                values.append(slot.read(tag, data))
        except AfreshError:
            raise
        except Exception as error:
            place = len(values)
            raise FormatError(
                f"Value {place + 1} of {len(self.types)} can't be read: {error}. Both sides have "
                f"to agree on its type; here it is {self._slots[place].title}."
            ) from error
        return values

    def _unwritable(self, error: Exception) -> FormatError:
        return FormatError(f"A value can't be written in {self.language}: {error}.")
