"""Types of events that services tell each other: their names, versions, and how they are read.

A service owns the events that it publishes. Within a version, fields are only added, with defaults;
readers leave out what they do not know. A change that readers can't leave out makes a new version,
which those who still have the old one can read with an upcaster.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

import msgspec

from afresh.errors import DefinitionError, EnvelopeError
from afresh.rpc.formats import Codec, get_format

__all__ = ["EventType", "EventTypes", "Upcaster", "event", "event_type_of", "json_schemas"]

C = TypeVar("C", bound=type)

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the fields of an event of an older version, and returns those of the next one."""

_FORMAT = get_format("json5np")


@dataclass(frozen=True, slots=True)
class EventType:
    """How a class of events is called, and read.

    Args:
        cls: the class.
        name: without the version: "shop.order_placed".
        version: the major version.
        destination: the logical channel; the part of the name before the last dot, or the whole.
        aliases: names that it had before.
        upcasters: by the version that they read.
    """

    cls: type
    name: str
    version: int = 1
    destination: str = ""
    aliases: tuple[str, ...] = ()
    upcasters: Mapping[int, Upcaster] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """What it is called in an envelope: "shop.order_placed.v1"."""
        return f"{self.name}.v{self.version}"

    @property
    def channel(self) -> str:
        """The logical channel that it is published to."""
        return self.destination or self.name.rpartition(".")[0] or self.name

    def encode(self, event: Any) -> bytes:
        """Return the data of an event.

        Raises:
            FormatError: a value can't be written.
        """
        return bytes(_codec(self.cls).encode_one(event))

    def decode(self, data: bytes, version: int) -> Any:
        """Return the event that data stands for.

        Args:
            data: as JSON.
            version: in which it was written.

        Raises:
            EnvelopeError: it does not fit the class, it is of a newer version, or no upcaster
                reads an older one.
        """
        try:
            if version != self.version:
                data = self._upcast(data, version)
            return _codec(self.cls).decode_one(data)
        except EnvelopeError:
            raise
        except Exception as error:
            raise EnvelopeError(f"A {self.name}.v{version} can't be read: {error}") from error

    def _upcast(self, data: bytes, version: int) -> bytes:
        if version > self.version:
            raise EnvelopeError(
                f"{self.name}.v{version} is newer than version {self.version}, which is known "
                "here: update this service, or have its publisher publish the older one beside it."
            )
        fields: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        for each in range(version, self.version):
            upcaster = self.upcasters.get(each)
            if upcaster is None:
                raise EnvelopeError(
                    f"{self.name}.v{version} can't be read as version {self.version}: there is no "
                    f"upcaster from {each}; add one, @event(…, upcasters={{{each}: …}})."
                )
            fields = upcaster(fields)
        return msgspec.json.encode(fields)


_types: weakref.WeakKeyDictionary[type, EventType] = weakref.WeakKeyDictionary()
_codecs: weakref.WeakKeyDictionary[type, Codec] = weakref.WeakKeyDictionary()


def _codec(cls: type) -> Codec:
    codec = _codecs.get(cls)
    if codec is None:
        codec = _codecs[cls] = _FORMAT.codec((cls,))
    return codec


@overload
def event(cls: C, /) -> C: ...
@overload
def event(
    name: str,
    /,
    *,
    version: int = 1,
    destination: str = "",
    aliases: tuple[str, ...] = (),
    upcasters: Mapping[int, Upcaster] | None = None,
) -> Callable[[C], C]: ...
def event(
    name: Any,
    /,
    *,
    version: int = 1,
    destination: str = "",
    aliases: tuple[str, ...] = (),
    upcasters: Mapping[int, Upcaster] | None = None,
) -> Any:
    """Say what a class of events is called among services.

    Without it, that is the name of the class.

    Args:
        name: the domain and the event: "shop.order_placed".
        version: raised when readers of the old one could not make do with the new one.
        destination: the logical channel that it is published to; the domain unless given.
        aliases: names that it had before.
        upcasters: by older versions, what makes the fields of the next version of theirs.

    Raises:
        DefinitionError: the name or the version can't be one.

    Example:
        ```python
        @event("shop.order_placed")
        class OrderPlaced(msgspec.Struct, frozen=True):
            order_id: int
            user_id: str
        ```
    """
    if isinstance(name, type):
        return event(name.__qualname__)(name)
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name):
        raise DefinitionError(
            f"{name!r} can't be the name of an event; write one like 'shop.order_placed'."
        )
    if version < 1:
        raise DefinitionError(f"{name}: versions count from 1.")

    def decorate(cls: C) -> C:
        _types[cls] = EventType(cls, name, version, destination, aliases, dict(upcasters or {}))
        return cls

    return decorate


def event_type_of(cls: type) -> EventType:
    """Return how a class of events is called and read."""
    found = _types.get(cls)
    if found is None:
        found = _types[cls] = EventType(cls, cls.__name__)
    return found


def is_event(cls: type) -> bool:
    """Whether a class is known to be one of events."""
    return cls in _types


class EventTypes:
    """The types of events that a program reads, by their names."""

    def __init__(self) -> None:
        self._types: dict[str, EventType] = {}

    def add(self, cls: type) -> EventType:
        """Make a class known.

        Raises:
            DefinitionError: another class has that name.
        """
        kind = event_type_of(cls)
        for name in (kind.name, *kind.aliases):
            other = self._types.setdefault(name, kind)
            if other.cls is not cls:
                raise DefinitionError(
                    f"{cls.__qualname__} and {other.cls.__qualname__} are both called {name!r}; "
                    'give one of them another name with @event("…").'
                )
        return kind

    def find(self, type_name: str) -> tuple[EventType, int] | None:
        """Return the type that an envelope names, and the version; None if it is not known.

        Args:
            type_name: "shop.order_placed.v2" for example; version 1 where it names none.
        """
        name, dot, version = type_name.rpartition(".v")
        if not (dot and version.isascii() and version.isdigit() and len(version) < 10):
            name, version = type_name, "1"
        kind = self._types.get(name)
        return None if kind is None else (kind, int(version))

    def __iter__(self) -> Iterator[EventType]:
        return iter({kind.cls: kind for kind in self._types.values()}.values())

    def __len__(self) -> int:
        return len(list(iter(self)))


def json_schemas(*classes: type) -> dict[str, Any]:
    """Return the JSON Schema of events, by their names: a contract to hold in tests of readers.

    Args:
        classes: of the events.
    """
    found = {}
    for cls in classes:
        (schema,), components = msgspec.json.schema_components(
            (cls,), ref_template="#/$defs/{name}"
        )
        found[event_type_of(cls).type] = {**schema, "$defs": components}
    return found
