"""What compute methods are called in the log, so that every host finds its own.

A service has the name under which it was added to the app; a compute function the names of its
module and its own. Only what was added is ever found by a name.
"""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints
from weakref import WeakKeyDictionary

import msgspec

from afresh.errors import DefinitionError
from afresh.graph import registry
from afresh.graph.bound import ComputeMethod
from afresh.graph.definition import TABLES, Definition
from afresh.graph.table import Table
from afresh.rpc.formats import Codec, get_format
from afresh.rpc.signatures import Signature

__all__ = ["Services"]

_FORMAT = get_format("json5np")
_SEPARATOR = b"\x1f"
_read_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode

_codecs: WeakKeyDictionary[Definition, Codec | None] = WeakKeyDictionary()


class Services:
    """The services whose compute methods operations can make stale on every host."""

    def __init__(self) -> None:
        self._instances: dict[str, object] = {}
        self._names: dict[int, str] = {}
        self._tables: dict[tuple[str, str], Table | None] = {}

    def add(self, name: str, instance: object) -> None:
        """Make the compute methods of a service known under a name, the same on every host.

        Raises:
            DefinitionError: another service has that name.
        """
        if self._instances.setdefault(name, instance) is not instance:
            raise DefinitionError(
                f"Two services are called {name!r}: {self._instances[name]!r} and {instance!r}. "
                "Add one of them with another name, app.add(service, name=…): operations find "
                "them by it on every host."
            )
        self._names.setdefault(id(instance), name)
        self._tables.clear()

    def name_of(self, table: Table) -> tuple[str, str]:
        """Return the names of the service and of the method that results belong to.

        Raises:
            DefinitionError: the service was not added.
        """
        definition = table.definition
        if not definition.is_method:
            return "", f"{definition.module}:{definition.qualified_name}"
        name = self._names.get(id(table.instance))
        if name is None:
            raise DefinitionError(
                f"{table.category} can't be made stale on other hosts, which do not know "
                f"{table.instance!r} by a name: add it, app.add(service, is_served=False)."
            )
        return name, definition.name

    def table_of(self, service: str, method: str) -> Table | None:
        """Return the results of a method by its names; None where there is no such method here."""
        key = service, method
        try:
            return self._tables[key]
        except KeyError:
            table = self._tables[key] = self._find(service, method)
            return table

    def tables_of(self, service: str) -> list[Table]:
        """Return all results of a service; none where there is no such service here."""
        return list(getattr(self._instances.get(service), TABLES, {}).values())

    def _find(self, service: str, method: str) -> Table | None:
        if not service:
            return registry.function_table(method)
        instance = self._instances.get(service)
        declared = getattr(type(instance), method, None)
        if not isinstance(declared, ComputeMethod):
            return None
        return declared.definition.table_of(instance)

    def __contains__(self, instance: object) -> bool:
        return id(instance) in self._names


# -- arguments


def encode_arguments(table: Table, args: tuple[Any, ...]) -> msgspec.Raw | None:
    """Return the arguments of a call as a JSON array; None where reading them elsewhere would not
    lead to the same result, so that all results of the method have to count.
    """
    definition = table.definition
    codec = _codec(definition)
    if codec is None:
        return None
    args = table.stored(args)  # without what makes no difference, and perhaps can't be written
    try:
        section = codec.encode(args)
        if definition.key_of(tuple(codec.decode(section))) != definition.key_of(args):
            return None
    except Exception:
        return None
    return msgspec.Raw(b"[%b]" % section.replace(_SEPARATOR, b","))


def decode_key(table: Table, arguments: msgspec.Raw) -> Any:
    """Return the key of the call whose arguments `encode_arguments` returned.

    Raises:
        Exception: the method takes others here.
    """
    codec = _codec(table.definition)
    if codec is None:
        raise TypeError(f"The arguments of {table.category} can't be read.")
    section = _SEPARATOR.join(map(bytes, _read_parts(arguments)))
    return table.definition.key_of(tuple(codec.decode(section)))


def _codec(definition: Definition) -> Codec | None:
    try:
        return _codecs[definition]
    except KeyError:
        codec = _codecs[definition] = _make_codec(definition)
        return codec


def _make_codec(definition: Definition) -> Codec | None:
    try:
        return _FORMAT.codec(_types_of(definition))
    except DefinitionError:
        return None


def _types_of(definition: Definition) -> tuple[Any, ...]:
    parameters = definition.parameters.signature.parameters.values()
    if definition.is_method:
        owner = definition.owner or object
        try:
            return Signature(
                definition.function, definition.qualified_name, contract=owner, owner=owner
            ).types
        except DefinitionError:
            pass  # it takes what no contract could; what was understood shows when it is read
    try:
        hints = get_type_hints(definition.function, include_extras=True)
    except Exception:
        hints = {}
    return tuple(_type_of(each, hints.get(each.name, Any)) for each in parameters)


def _type_of(parameter: inspect.Parameter, hint: Any) -> Any:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return tuple[hint, ...]
    if parameter.kind is parameter.VAR_KEYWORD:
        return dict[str, hint]
    return hint
