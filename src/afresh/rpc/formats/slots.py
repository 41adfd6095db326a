"""The places of values in an argument section, one for each type.

In a slot, a value that may be of a subclass, or is an array of such, is preceded by a marker that
tells the class. Only .NET peers want that, and not in all formats; what markers look like is left
to codecs. Anywhere else the tag is a member of the value.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import msgspec
from msgspec import inspect as shape

from .open_types import open_base
from .reading import ValueReader
from .types import shape_of
from .writing import Render, ValueWriter

__all__ = ["DECLARED", "NO_DEFAULT", "NULL", "Slot"]

NO_DEFAULT: Final[Any] = inspect.Parameter.empty
"""Stands among defaults for a value that has none."""

DECLARED = ""
"""Marks a value that has the declared type, or is an array of such."""
NULL = "0"
"""Marks the place of a null, which takes no more than the marker."""


class Slot:
    """The place of one value.

    Args:
        annotation: the type of the value.
        default: what a missing value is; `NO_DEFAULT` for an error, or None where the type has it.
        reader: makes values of what was decoded.
        writer: turns values into what can be encoded.
        has_markers: whether open types are marked here.
    """

    __slots__ = (
        "_base",
        "_default",
        "_read",
        "_reader",
        "_writer",
        "is_marked",
        "render",
        "title",
    )

    def __init__(
        self,
        annotation: Any,
        default: Any,
        reader: ValueReader,
        writer: ValueWriter,
        *,
        has_markers: bool,
    ) -> None:
        outer = shape_of(annotation)
        self._base = _open_base(outer)
        self._default = default
        self._reader = reader
        self._writer = writer
        self._read = reader.reader_of(annotation)
        self.is_marked: bool = has_markers and (self._base is not None or _is_open_array(outer))
        self.render: Render | None = writer.renderer_of(annotation)
        self.title: str = inspect.formatannotation(annotation)

    def read(self, tag: str | None, data: Any) -> Any:
        """Make the value of what was decoded.

        Args:
            tag: that of the marker, or None if there was none.
            data: `msgspec.UNSET` if nothing was there.
        """
        if data is msgspec.UNSET:
            return self._read(None) if self._default is NO_DEFAULT else self._default
        if tag and tag != NULL and self._base is not None:
            return self._reader.read_tagged(self._base, tag, data)
        try:
            return self._read(data)
        except msgspec.ValidationError:
            # JavaScript's undefined comes as null.
            if data is None and self._default is not NO_DEFAULT:
                return self._default
            raise

    def render_marked(self, value: Any) -> tuple[str, Any]:
        """Return the tag for the marker, and what to encode after it."""
        if value is None:
            return NULL, None
        if self._base is None:
            return DECLARED, value if self.render is None else self.render(value)
        tag, members = self._writer.render_tagged(self._base, value)
        return tag or DECLARED, members


def _open_base(outer: shape.Type) -> type | None:
    match outer:
        case shape.CustomType():
            return open_base(outer.cls)
        case shape.UnionType() if len(outer.types) == 2 and outer.includes_none:
            return next(filter(None, map(_open_base, outer.types)), None)
        case shape.Metadata():
            return _open_base(outer.type)
        case _:
            return None


def _is_open_array(outer: shape.Type) -> bool:
    return isinstance(outer, shape.CollectionType) and _open_base(outer.item_type) is not None
