"""What the items of streams are, as far as annotations say it.

A stream that does not know the type of its items itself has that of the place where it is written.
What the types mean for the bytes on the wire is left to formats.
"""

from __future__ import annotations

import functools
import typing
from typing import Any, TypeVar

__all__ = ["item_type_of", "item_type_within"]


def item_type_of(annotation: Any) -> Any:
    """Return `T` of an annotation `RpcStream[T]`, or Any where it says nothing."""
    arguments = typing.get_args(annotation)
    if not arguments or isinstance(arguments[0], TypeVar):
        return Any
    return arguments[0]


@functools.cache
def item_type_within(annotations: tuple[Any, ...]) -> Any:
    """Return what all streams in values of these types have as items; Any if that is not one type.

    Streams are looked for in the arguments of generic types and in the fields of records.
    """
    from .stream import RpcStream

    found: list[Any] = []
    seen: set[Any] = set()

    def visit(annotation: Any) -> None:
        origin = typing.get_origin(annotation) or annotation
        if origin is RpcStream:
            found.append(item_type_of(annotation))
            return
        for argument in typing.get_args(annotation):
            visit(argument)
        if isinstance(origin, type) and origin not in seen:
            seen.add(origin)
            try:
                fields = typing.get_type_hints(origin)
            except Exception:
                return  # names that only a type checker knows; formats have their own view of them
            for field in fields.values():
                visit(field)

    for annotation in annotations:
        visit(annotation)
    if found and all(item_type == found[0] for item_type in found):
        return found[0]
    return Any
