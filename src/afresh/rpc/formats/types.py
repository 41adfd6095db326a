"""What annotations say, seen through: which types lie within them, and how fields are called."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeAlias

from msgspec import inspect as shape

from afresh.errors import DefinitionError

from .naming import RecordNaming
from .open_types import open_base
from .shapes import WELL_KNOWN

__all__ = [
    "OBJECTS",
    "Record",
    "class_of",
    "is_stream",
    "naming_of",
    "needs_conversion",
    "reachable",
    "shape_of",
    "spellings",
    "wire_name",
]

Record: TypeAlias = shape.StructType | shape.DataclassType | shape.TypedDictType
OBJECTS = (shape.StructType, shape.DataclassType, shape.TypedDictType)


def shape_of(annotation: Any) -> shape.Type:
    """Return what msgspec makes of an annotation.

    Raises:
        DefinitionError: values of such a type can't travel.
    """
    try:
        return shape.type_info(annotation)
    except (TypeError, NameError) as error:
        raise DefinitionError(
            f"Values annotated as {annotation!r} can't travel: {error}. Records are made with "
            "msgspec.Struct, dataclasses or attrs."
        ) from error


def reachable(types: Iterable[shape.Type]) -> list[shape.Type]:
    """Return the types and all that lie within them, in fields of records too."""
    found: dict[int, shape.Type] = {}
    waiting = list(types)
    while waiting:
        each = waiting.pop()
        if id(each) not in found:
            found[id(each)] = each
            waiting.extend(_parts(each))
    return list(found.values())


def _parts(outer: shape.Type) -> Iterable[shape.Type]:
    match outer:
        case (
            shape.StructType()
            | shape.DataclassType()
            | shape.TypedDictType()
            | shape.NamedTupleType()
        ):
            return [field.type for field in outer.fields]
        case shape.UnionType():
            return outer.types
        case shape.DictType():
            return outer.key_type, outer.value_type
        case shape.TupleType():
            return outer.item_types
        case shape.CollectionType():
            return (outer.item_type,)
        case shape.Metadata():
            return (outer.type,)
        case _:
            return ()


def class_of(record: Record | shape.NamedTupleType) -> type:
    """Return the class of a record, without the arguments of a generic one."""
    return typing.get_origin(record.cls) or record.cls


@cache
def _stream_class() -> type:
    # Streams are coded by codecs of formats, so neither module can wait for the other.
    from ..streams import RpcStream

    return RpcStream


def is_stream(cls: type) -> bool:
    """Whether instances of a class are streams."""
    return issubclass(cls, _stream_class())


def naming_of(cls: type, naming: RecordNaming) -> RecordNaming:
    """Return how fields of a record are called where `naming` rules."""
    return RecordNaming.DOTNET if cls in WELL_KNOWN else naming


def needs_conversion(each: shape.Type, naming: RecordNaming) -> bool:
    """Whether values of the type look different on the wire than msgspec would write them."""
    match each:
        case shape.TimeDeltaType():
            return True
        case shape.StructType() | shape.DataclassType() | shape.TypedDictType():
            return naming_of(class_of(each), naming) is RecordNaming.DOTNET
        case shape.CustomType():
            return open_base(each.cls) is not None
        case shape.AnyType():
            return naming is RecordNaming.DOTNET
        case _:
            return False


def wire_name(field: shape.Field, naming: RecordNaming, *, is_text: bool) -> str:
    """Return what a field is called when it is written."""
    if naming is RecordNaming.PYTHON or field.encode_name != field.name:
        return field.encode_name
    pascal = _pascal(field.name)
    return pascal[:1].lower() + pascal[1:] if is_text else pascal


def spellings(fields: Iterable[shape.Field]) -> dict[str, shape.Field]:
    """Return what fields may be called when they are read in any case, in lower case."""
    found: dict[str, shape.Field] = {}
    for field in fields:
        for name in (field.encode_name, field.name, _pascal(field.name)):
            found.setdefault(name.lower(), field)
    return found


def _pascal(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))
