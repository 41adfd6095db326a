"""What was decoded, brought into the form that msgspec converts to the types of annotations.

Needed where the wire has other names, other forms of a value, or numbers of the other kind than
annotations want. All checking of values is left to `msgspec.convert`.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect as shape

from afresh.errors import FormatError
from afresh.primitives.secrets import Secret

from .naming import RecordNaming
from .open_types import TAG, open_base
from .open_types import class_of as class_of_tag
from .shapes import Option
from .times import Moment, read_moment, read_time_span
from .types import (
    OBJECTS,
    Record,
    class_of,
    is_stream,
    naming_of,
    shape_of,
    spellings,
    wire_name,
)

__all__ = ["ValueReader"]

Conform: TypeAlias = Callable[[Any], Any]
"""Brings a value into the form that msgspec takes; what does not fit at all is left as it is."""


class ValueReader:
    """Makes values of what was decoded without regard to types.

    Args:
        naming: how fields of records are called.
        is_text: whether it was JSON.
    """

    def __init__(self, naming: RecordNaming, *, is_text: bool) -> None:
        self.naming: RecordNaming = naming
        self._is_text = is_text
        self._records: dict[Any, Conform] = {}
        self._open: dict[type, Callable[[Any], Any]] = {}

    def reader_of(self, annotation: Any) -> Callable[[Any], Any]:
        """Return the function that makes a value of the type."""
        conform = self._conform(shape_of(annotation))

        def read(data: Any) -> Any:
            if conform is not None:
                data = conform(data)
            # In text formats, keys are always text; TypeScript peers have them so in others too.
            return msgspec.convert(data, annotation, dec_hook=self.hook, str_keys=True)

        return read

    def hook(self, annotation: Any, data: Any) -> Any:
        """Make a value of a type that msgspec does not know."""
        cls = typing.get_origin(annotation) or annotation
        if cls is Moment:
            return read_moment(data)
        if cls is Secret:
            (kind,) = typing.get_args(annotation) or (Any,)
            return Secret(msgspec.convert(data, kind, dec_hook=self.hook, str_keys=True))
        base = open_base(cls)
        if base is not None:
            return self._read_open(base, data)
        if is_stream(cls):
            from ..streams.reference import from_wire

            return from_wire(annotation, data)
        raise TypeError(
            f"{cls.__qualname__} can't travel; make it a msgspec.Struct, a dataclass or an attrs "
            "class"
        )

    def read_tagged(self, base: type, tag: str | None, data: Any) -> Any:
        """Make a value of the class that is registered for `base` with a tag, or of `base`."""
        cls = base if tag is None else class_of_tag(base, tag)
        read = self._open.get(cls)
        if read is None:
            read = self._open[cls] = self.reader_of(cls)
        return read(data)

    def _read_open(self, base: type, data: Any) -> Any:
        tag = None
        if isinstance(data, dict):
            data = dict(data)
            tag = data.pop(TAG, None)
            if tag is not None and not isinstance(tag, str):
                raise FormatError(f"The tag of a kind of {base.__qualname__} is not a text.")
        return self.read_tagged(base, tag, data)

    # -- forms

    def _conform(self, outer: shape.Type) -> Conform | None:
        match outer:
            case shape.IntType():
                return _integral
            case shape.EnumType():
                return _integral if issubclass(outer.cls, int) else None
            case shape.TimeDeltaType():
                return read_time_span
            case shape.AnyType():
                return _without_decimals if self._is_text else None
            case shape.Metadata():
                return self._conform(outer.type)
            case shape.UnionType():
                return self._conform_union(outer)
            case shape.StructType() | shape.DataclassType() | shape.TypedDictType():
                return self._conform_record(outer)
            case shape.NamedTupleType():
                return _conform_items([self._conform(field.type) for field in outer.fields])
            case shape.TupleType():
                return _conform_items([self._conform(each) for each in outer.item_types])
            case shape.DictType():
                return _conform_dict(self._conform(outer.key_type), self._conform(outer.value_type))
            case shape.CollectionType():
                return _conform_each(self._conform(outer.item_type))
            case _:
                return None

    def _conform_union(self, union: shape.UnionType) -> Conform | None:
        for each in union.types:
            if isinstance(each, shape.AnyType):
                return self._conform(each)
        records: list[tuple[shape.Type, Conform]] = []
        others: dict[type, Conform] = {}
        has_floats = any(isinstance(each, shape.FloatType) for each in union.types)
        has_numbers = has_floats or any(isinstance(each, shape.IntType) for each in union.types)
        for each in union.types:
            conform = self._conform(each)
            if conform is None:
                continue
            if isinstance(each, OBJECTS):
                records.append((each, conform))
            elif isinstance(each, shape.DictType):
                others[dict] = conform
            elif isinstance(each, (shape.CollectionType, shape.TupleType, shape.NamedTupleType)):
                others[list] = conform
            elif isinstance(each, shape.TimeDeltaType):
                others[str] = conform
                if not has_numbers:
                    others[int] = others[float] = conform
            elif not has_floats:
                others[float] = others[Decimal] = conform
        if not records and not others:
            return None

        def conform_any(data: Any) -> Any:
            conform = others.get(type(data))
            if conform is not None:
                return conform(data)
            if isinstance(data, (dict, list)):
                for record, conform in records:
                    if len(records) == 1 or _has_tag(record, data):
                        return conform(data)
            return data

        return conform_any

    def _conform_record(self, record: Record) -> Conform:
        found = self._records.get(record.cls)
        if found is None:
            naming = naming_of(class_of(record), self.naming)
            conform = _RecordForm(record, naming, is_text=self._is_text)
            found = _option_form(conform) if class_of(record) is Option else conform
            self._records[record.cls] = found
            # Only now: a record may hold others of its kind.
            conform.conform_fields(self._conform)
        return found


class _RecordForm:
    """Names the members of a record as msgspec does, whatever they are called on the wire."""

    __slots__ = ("_by_name", "_fields", "_forms", "_is_array", "_lowered", "_tag", "_tag_field")

    def __init__(self, record: Record, naming: RecordNaming, *, is_text: bool) -> None:
        self._fields = record.fields
        self._is_array = False
        self._tag: str | int | None = None
        self._tag_field: str | None = None
        if isinstance(record, shape.StructType):
            self._is_array = record.array_like
            self._tag = record.tag
            self._tag_field = record.tag_field
        self._forms: dict[str, Conform | None] = {}
        is_dotnet = naming is RecordNaming.DOTNET
        self._by_name = {wire_name(field, naming, is_text=is_text): field for field in self._fields}
        self._lowered = spellings(self._fields) if is_dotnet else None

    def conform_fields(self, conform: Callable[[shape.Type], Conform | None]) -> None:
        """Find out what is to be done to the values of the fields."""
        self._forms = {field.name: conform(field.type) for field in self._fields}

    def __call__(self, data: Any) -> Any:
        if isinstance(data, dict):
            members = self._from_object(data)
        elif isinstance(data, list) and (self._is_array or self._lowered is not None):
            members = self._from_array(data)
        else:
            return data
        return self._as_array(members) if self._is_array else members

    def _from_object(self, data: dict[Any, Any]) -> dict[Any, Any]:
        members = {}
        for key, value in data.items():
            field = self._by_name.get(key)
            if field is None and self._lowered is not None and isinstance(key, str):
                field = self._lowered.get(key.lower())
            if field is None:
                members[key] = value
            else:
                form = self._forms[field.name]
                members[field.encode_name] = value if form is None else form(value)
        return members

    def _from_array(self, data: list[Any]) -> dict[Any, Any]:
        members: dict[Any, Any] = {}
        values = iter(data)
        if self._tag_field is not None and self._is_array:
            members[self._tag_field] = next(values, None)
        for field, value in zip(self._fields, values, strict=False):
            form = self._forms[field.name]
            members[field.encode_name] = value if form is None else form(value)
        return members

    def _as_array(self, members: dict[Any, Any]) -> list[Any]:
        items = [] if self._tag_field is None else [members.get(self._tag_field, self._tag)]
        for field in self._fields:
            if field.encode_name in members:
                items.append(members[field.encode_name])
            elif field.default is not msgspec.NODEFAULT:
                items.append(field.default)
            elif field.default_factory is not msgspec.NODEFAULT:
                items.append(field.default_factory())
            else:
                break
        return items


def _option_form(conform: Conform) -> Conform:
    def conform_option(data: Any) -> Any:
        if isinstance(data, list):
            data = {"has_value": True, "value_or_default": data[0]} if data else {}
        members = conform(data)
        if isinstance(members, dict) and not members.get("has_value"):
            return {}
        return members

    return conform_option


def _conform_items(forms: list[Conform | None]) -> Conform | None:
    if not any(forms):
        return None

    def conform(data: Any) -> Any:
        if not isinstance(data, list) or len(data) > len(forms):
            return data
        return [
            value if form is None else form(value) for form, value in zip(forms, data, strict=False)
        ]

    return conform


def _conform_each(form: Conform | None) -> Conform | None:
    if form is None:
        return None
    return lambda data: list(map(form, data)) if isinstance(data, list) else data


def _conform_dict(key_form: Conform | None, value_form: Conform | None) -> Conform | None:
    if key_form is None and value_form is None:
        return None

    def conform(data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            (key if key_form is None else key_form(key)): (
                value if value_form is None else value_form(value)
            )
            for key, value in data.items()
        }

    return conform


def _has_tag(record: shape.Type, data: Any) -> bool:
    if not isinstance(record, shape.StructType) or record.tag_field is None:
        return False
    if isinstance(data, dict):
        return data.get(record.tag_field) == record.tag
    return bool(data) and data[0] == record.tag


def _integral(data: Any) -> Any:
    # JavaScript has one kind of numbers: beyond 32 bits its integers come as floats.
    number = float(data) if isinstance(data, Decimal) else data
    if isinstance(number, float) and number.is_integer() and abs(number) < 2**64:
        return int(number)
    return data


def _without_decimals(data: Any) -> Any:
    match data:
        case Decimal():
            return float(data)
        case list():
            return list(map(_without_decimals, data))
        case dict():
            return {key: _without_decimals(value) for key, value in data.items()}
        case _:
            return data
