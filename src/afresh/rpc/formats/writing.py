"""Values brought into the form that they have on the wire, where msgspec would write another.

Names of fields, durations and open types are what it is about; values whose annotations hold none
of these are left to msgspec alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect as shape

from afresh.errors import FormatError
from afresh.primitives.secrets import Secret

from .naming import RecordNaming
from .open_types import TAG, open_base, tag_of
from .shapes import Option
from .times import Moment, ticks_of, write_time_span
from .types import OBJECTS, Record, class_of, is_stream, naming_of, shape_of, wire_name

__all__ = ["ValueWriter"]

Render: TypeAlias = Callable[[Any], Any]
"""Turns a value into one that msgspec writes as it should be."""


class ValueWriter:
    """Turns values into what msgspec then writes.

    Args:
        naming: how fields of records are called.
        is_text: whether it will be JSON.
    """

    def __init__(self, naming: RecordNaming, *, is_text: bool) -> None:
        self._naming = naming
        self._is_text = is_text
        self._records: dict[Any, Render] = {}
        self._classes: dict[type, Render | None] = {}

    def renderer_of(self, annotation: Any) -> Render | None:
        """Return what renders values of the type; None if they are written as they are."""
        return self._form(shape_of(annotation))

    def hook(self, value: Any) -> Any:
        """Turn a value that msgspec does not know into one that it knows."""
        if isinstance(value, Moment):
            if self._is_text:
                return value.to_text()
            # .NET peers write the long form, however small the number.
            return msgspec.Raw(b"\xd3" + value.ticks.to_bytes(8, "big", signed=True))
        if isinstance(value, Secret):
            return value.reveal()
        if is_stream(type(value)):
            from ..streams.reference import to_wire

            return to_wire(value)
        raise TypeError(
            f"{type(value).__qualname__} can't travel; make it a msgspec.Struct, a dataclass or an "
            "attrs class"
        )

    def record_of(self, cls: type) -> Render | None:
        """Return what renders objects of a class, if they are records."""
        if cls not in self._classes:
            record = shape_of(cls)
            form = self._record(record) if isinstance(record, OBJECTS) else None
            self._classes[cls] = form
        return self._classes[cls]

    def render_tagged(self, base: type, value: Any) -> tuple[str | None, dict[str, Any]]:
        """Return the tag that a value has among the kinds of `base`, and its members by name."""
        tag = tag_of(base, value)
        form = self.record_of(type(value))
        if not isinstance(form, _RecordForm):
            raise FormatError(
                f"{type(value).__qualname__}, a kind of {base.__qualname__}, is not a record; make "
                "it a msgspec.Struct, a dataclass or an attrs class."
            )
        return tag, form.members(value)

    # -- forms of types

    def _form(self, outer: shape.Type) -> Render | None:
        match outer:
            case shape.TimeDeltaType():
                return self._write_duration
            case shape.AnyType():
                # The same when read: without .NET's names, msgspec knows what to do.
                return self._render_any if self._naming is RecordNaming.DOTNET else None
            case shape.Metadata():
                return self._form(outer.type)
            case shape.CustomType():
                base = open_base(outer.cls)
                return None if base is None else self._form_of_open(base)
            case shape.UnionType():
                return self._form_of_union(outer)
            case shape.StructType() | shape.DataclassType() | shape.TypedDictType():
                return self._record(outer)
            case shape.NamedTupleType():
                return _form_of_items([self._form(field.type) for field in outer.fields])
            case shape.TupleType():
                return _form_of_items([self._form(each) for each in outer.item_types])
            case shape.DictType():
                return _form_of_dict(self._form(outer.key_type), self._form(outer.value_type))
            case shape.CollectionType():
                return _form_of_each(self._form(outer.item_type))
            case _:
                return None

    def _form_of_union(self, union: shape.UnionType) -> Render | None:
        forms = [
            (_classes_of(each), form)
            for each in union.types
            if (form := self._form(each)) is not None
        ]
        if not forms:
            return None

        def render(value: Any) -> Any:
            if value is not None:
                for classes, form in forms:
                    if isinstance(value, classes):
                        return form(value)
            return value

        return render

    def _form_of_open(self, base: type) -> Render:
        def render(value: Any) -> Any:
            tag, members = self.render_tagged(base, value)
            return members if tag is None else {TAG: tag, **members}

        return render

    def _write_duration(self, value: Any) -> Any:
        if not isinstance(value, timedelta):
            return value
        return write_time_span(value) if self._is_text else ticks_of(value)

    def _render_any(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | float() | str() | bytes():
                return value
            case timedelta():
                return self._write_duration(value)
            case dict():
                return {self._render_any(key): self._render_any(it) for key, it in value.items()}
            case list() | tuple() | set() | frozenset():
                return list(map(self._render_any, value))
            case _:
                form = self.record_of(type(value))
                return value if form is None else form(value)

    # -- records

    def _record(self, record: Record) -> Render:
        found = self._records.get(record.cls)
        if found is None:
            naming = naming_of(class_of(record), self._naming)
            form = _RecordForm(self, record, naming, is_text=self._is_text)
            found = _OptionForm(form, is_text=self._is_text) if class_of(record) is Option else form
            self._records[record.cls] = found
            # Only now: a record may hold others of its kind.
            form.fields = [
                (
                    field.name,
                    wire_name(field, naming, is_text=self._is_text),
                    self._form(field.type),
                )
                for field in record.fields
            ]
        return found


class _RecordForm:
    """Writes the members of a record by the names that they have on the wire."""

    __slots__ = ("_class", "_is_array", "_is_dict", "_tag", "_writer", "fields")

    def __init__(
        self, writer: ValueWriter, record: Record, naming: RecordNaming, *, is_text: bool
    ) -> None:
        self._writer = writer
        self._is_dict = isinstance(record, shape.TypedDictType)
        self._class: type = dict if self._is_dict else class_of(record)
        # .NET peers number the members of some records, but in JSON they have names all the same.
        has_names = is_text and naming is RecordNaming.DOTNET
        self._is_array = False
        self._tag: dict[str, Any] = {}
        if isinstance(record, shape.StructType):
            self._is_array = record.array_like and not has_names
            if record.tag_field is not None:
                self._tag = {record.tag_field: record.tag}
        self.fields: list[tuple[str, str, Render | None]] = []

    def __call__(self, value: Any) -> Any:
        if type(value) is not self._class:
            form = self._writer.record_of(type(value))
            return value if form is None else form(value)
        members = self.members(value)
        return list(members.values()) if self._is_array else members

    def members(self, value: Any) -> dict[str, Any]:
        """Return the members of a record."""
        members = self._tag.copy()
        for name, title, form in self.fields:
            if not self._is_dict:
                member = getattr(value, name)
            elif name in value:
                member = value[name]
            else:
                continue
            if member is not msgspec.UNSET:
                members[title] = member if form is None else form(member)
        return members


class _OptionForm:
    """Writes options, which have no names in binary formats."""

    __slots__ = ("_form", "_is_text")

    def __init__(self, form: _RecordForm, *, is_text: bool) -> None:
        self._form = form
        self._is_text = is_text

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Option):
            return value
        members = self._form.members(value)
        if self._is_text:
            # Without the value, .NET takes the default of the type, which null may not be.
            return members if value.has_value else {"hasValue": False}
        return list(members.values())[1:] if value.has_value else []


def _classes_of(each: shape.Type) -> type | tuple[type, ...]:
    """Return what values of a type are instances of."""
    match each:
        case shape.TimeDeltaType():
            return timedelta
        case shape.Metadata():
            return _classes_of(each.type)
        case shape.TypedDictType() | shape.DictType():
            return dict
        case shape.StructType() | shape.DataclassType() | shape.NamedTupleType():
            return class_of(each)
        case shape.CustomType():
            return each.cls
        case shape.CollectionType() | shape.TupleType():
            return (list, tuple, set, frozenset)
        case _:
            return object


def _form_of_items(forms: list[Render | None]) -> Render | None:
    if not any(forms):
        return None
    return lambda value: [
        it if form is None else form(it) for form, it in zip(forms, value, strict=True)
    ]


def _form_of_each(form: Render | None) -> Render | None:
    if form is None:
        return None
    return lambda value: list(map(form, value))


def _form_of_dict(key_form: Render | None, value_form: Render | None) -> Render | None:
    if key_form is None and value_form is None:
        return None

    def render(value: Any) -> Any:
        return {
            (key if key_form is None else key_form(key)): (
                it if value_form is None else value_form(it)
            )
            for key, it in value.items()
        }

    return render
