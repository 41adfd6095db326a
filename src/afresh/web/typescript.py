"""TypeScript definitions of contracts, for pages that use `afresh.js`.

One file holds what the module offers, the records of the contracts, and the services by name, so
that `connect().service("Orders")` has the methods of `Orders` with their types. Records look as
they do in the JSON of the wire, which msgspec writes; so it is msgspec that is asked about them.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any

from msgspec import NODEFAULT
from msgspec import inspect as describing

from afresh.errors import DefinitionError
from afresh.remote.kind import COMPUTE
from afresh.rpc.contracts import MethodDefinition, ServiceDefinition
from afresh.rpc.formats import NO_DEFAULT, Moment, RecordNaming
from afresh.rpc.formats.open_types import open_base
from afresh.rpc.formats.types import class_of, is_stream, naming_of, shape_of, wire_name
from afresh.rpc.streams import RpcStream

__all__ = ["typescript_of"]

MODULE = "*/afresh.js"
"""What pages import: whatever path the module is served at."""

_HEADER = """\
// What afresh.js offers to pages, and the services that they can call with it.
// Written by `afresh ts`: change the contracts and run it again, rather than change this file.

"""

_GENERAL = """\
/** A call: await it. */
export type Call<T> = Omit<LiveCall<T>, "current" | "subscribe" | typeof Symbol.asyncIterator>;

/** A value that is live: await it, follow it with `subscribe`, or loop over what it becomes. */
export type LiveCall<T> = Omit<Query<T>, "stream">;

/** A call that gives a stream: loop over `stream()`. */
export interface StreamCall<T> extends Call<StreamReference<T>> {
  stream(): AsyncGenerator<T, void>;
}

/** A call that is not answered: `send()` it. */
export type NoWaitCall = Pick<Query<void>, "send">;

/** A stream within a value: `connect().open(reference)`. */
export type StreamReference<T> = string & { readonly item?: T };

export interface Hub {
  /** A service of the contracts below. */
  service<N extends keyof Services>(name: N, options?: ServiceOptions): Services[N];
  /** The items of a stream that came within a value. */
  open<T>(reference: StreamReference<T>, signal?: AbortSignal): AsyncGenerator<T, void>;
}
"""

_EXPORTED = re.compile(r"^export (?:type|interface|class|const|function) (\w+)", re.MULTILINE)

_GLOBAL = {
    *("AbortSignal", "Array", "AsyncGenerator", "AsyncIterable", "Error", "Omit", "Partial"),
    *("Pick", "Promise", "PromiseLike", "Record", "Services", "Symbol", "URL"),
}
"""Names that mean something within the module without being exported by it."""

_RESERVED = re.compile(
    "arguments|await|break|case|catch|class|const|continue|debugger|default|delete|do|else|enum|"
    "eval|export|extends|false|finally|for|function|if|implements|import|in|instanceof|interface|"
    "let|new|null|package|private|protected|public|return|static|super|switch|this|throw|true|try|"
    "typeof|var|void|while|with|yield"
)

_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


def typescript_of(services: Iterable[ServiceDefinition]) -> str:
    """Return the text of a TypeScript definition file for pages that call these services.

    Raises:
        DefinitionError: values of a type can't travel, or the services are not of one program: two
            have the same name, or names of one kind and of another.
    """
    services = list(services)
    names = [service.wire_name for service in services]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(f"There are two services called {name!r}; a page has one.")
    namings = {service.naming.records for service in services}
    if len(namings) > 1:
        raise DefinitionError(
            "Records of these services are named in different ways; write a file for each way."
        )
    module = files("afresh.web").joinpath("static", "afresh.d.ts").read_text(encoding="utf-8")
    taken = set(_EXPORTED.findall(module + _GENERAL))
    definitions = _Definitions(next(iter(namings), RecordNaming.PYTHON), taken)
    faces = list(map(definitions.face_of, services))
    parts = [
        module,
        _GENERAL,
        *definitions.records(),
        *(text for _, text in faces),
        _block(
            "Services",
            [f"{_quoted(name)}: {face};" for name, (face, _) in zip(names, faces, strict=True)],
        ),
    ]
    body = "\n\n".join(part.strip() for part in parts)
    return f'{_HEADER}declare module "{MODULE}" {{\n{_indented(body)}\n}}\n'


class _Definitions:
    """What records and services are called, and what they look like.

    Args:
        naming: how fields of records are called.
        taken: names that are not free.
    """

    def __init__(self, naming: RecordNaming, taken: set[str]) -> None:
        self._naming = naming
        self._taken = _GLOBAL | taken
        self._names: dict[Any, str] = {}
        self._infos: dict[Any, Any] = {}
        self._directions: dict[Any, set[str]] = {}

    # -- services

    def face_of(self, service: ServiceDefinition) -> tuple[str, str]:
        """Return the name of the interface of a service, and the interface."""
        methods = list(service.methods.values())
        types = list(map(self._types_of, methods))
        contract = service.contract
        name = self._new_name(contract.__name__, contract.__module__)
        lines = [
            _documentation(_words_on(method)) + _signature(method, parameters, result)
            for method, (parameters, result) in zip(methods, types, strict=True)
        ]
        text = _documentation(_words_of(contract)) + _block(name, lines)
        return name, text

    def _types_of(self, method: MethodDefinition) -> tuple[list[str], str]:
        try:
            sent = [self._type_of(each, "sent") for each in method.types]
            return sent, self._result_of(method)
        except DefinitionError as error:
            title = f"{method.service.contract.__qualname__}.{method.name}"
            raise DefinitionError(f"{title}: {error}") from error

    def _result_of(self, method: MethodDefinition) -> str:
        result = method.result_type
        if method.is_no_wait:
            return "NoWaitCall"
        if (typing.get_origin(result) or result) is RpcStream:
            return f"StreamCall<{self._item_of(result)}>"
        value = "void" if result is None else self._type_of(result, "received")
        return f"{'LiveCall' if method.kind.id == COMPUTE.id else 'Call'}<{value}>"

    # -- types

    def _type_of(self, hint: Any, direction: str) -> str:
        return self._spelled(shape_of(hint), _streams_in(hint), direction)

    def _item_of(self, stream: Any) -> str:
        items = typing.get_args(stream)
        return self._type_of(items[0], "received") if items else "any"

    def _spelled(self, info: describing.Type, streams: Iterator[Any], direction: str) -> str:
        """Return how TypeScript writes a type; `streams` are those within it, in order."""

        def spelled(each: describing.Type) -> str:
            return self._spelled(each, streams, direction)

        match info:
            case describing.NoneType():
                return "null"
            case describing.BoolType():
                return "boolean"
            case describing.IntType() | describing.FloatType() | describing.DecimalType():
                return "number"
            case describing.LiteralType(values):
                return _one_of(sorted(values, key=lambda value: (str(type(value)), value)))
            case describing.UnionType(types):
                return " | ".join(dict.fromkeys(map(spelled, types)))
            case describing.TupleType(types):
                return f"[{', '.join(map(spelled, types))}]"
            case describing.CollectionType(item):
                return _array_of(spelled(item))
            case describing.DictType(key, value):
                keys, items = spelled(key), spelled(value)
                if isinstance(key, (describing.LiteralType, describing.EnumType)):
                    return f"Partial<Record<{keys}, {items}>>"
                return f"Record<string, {items}>"
            case (
                describing.EnumType()
                | describing.StructType()
                | describing.DataclassType()
                | describing.TypedDictType()
                | describing.NamedTupleType()
            ):
                return self._record(info, direction)
            case describing.Metadata(inner):
                return spelled(inner)
            case describing.CustomType(kind) if is_stream(kind):
                return f"StreamReference<{self._item_of(next(streams))}>"
            case describing.CustomType(kind) if (base := open_base(kind)) is not None:
                return self._type_of(base, direction)
            case describing.CustomType(kind) if issubclass(kind, Moment):
                return "string"
            case describing.CustomType() | describing.AnyType() | describing.RawType():
                return "any"
            case _:  # all the rest is text in JSON
                return "string"

    # -- records

    def _record(self, info: Any, direction: str) -> str:
        kind = info.cls
        if kind not in self._names:
            self._names[kind] = self._new_name(_name_of(kind), class_of(info).__module__)
            self._infos[kind] = info
            self._directions[kind] = set()
        if direction not in self._directions[kind]:
            self._directions[kind].add(direction)
            if not isinstance(info, describing.EnumType):
                for _ in self._fields_of(info, direction):
                    pass  # what they are made of has this direction too
        return self._names[kind]

    def _new_name(self, name: str, module: str) -> str:
        """Return a name that nothing else has: `name` if possible."""
        tail = _pascal(module.rpartition(".")[2])
        candidates = (name, tail + name, *(f"{name}{number}" for number in range(2, 1000)))
        found = next(each for each in candidates if each not in self._taken)
        self._taken.add(found)
        return found

    def _fields_of(self, info: Any, direction: str) -> Iterator[tuple[describing.Field, str]]:
        hints = typing.get_type_hints(class_of(info))
        for field in info.fields:
            yield field, self._spelled(field.type, _streams_in(hints.get(field.name)), direction)

    def records(self) -> Iterator[str]:
        """Iterate over what defines the records and enumerations that the services mention."""
        for kind, info in self._infos.items():
            name = self._names[kind]
            words = _documentation(_words_of(class_of(info)))
            if isinstance(info, describing.EnumType):
                yield f"{words}export type {name} = {_one_of(member.value for member in kind)};"
                continue
            fields = list(self._fields_of(info, next(iter(self._directions[kind]))))
            tag = getattr(info, "tag_field", None)
            own = [(_quoted(tag), _one_of([info.tag]))] if tag is not None else []
            naming = naming_of(class_of(info), self._naming)
            is_array = naming is RecordNaming.PYTHON and getattr(info, "array_like", False)
            if is_array or isinstance(info, describing.NamedTupleType):
                labels = [*own, *((field.name, text) for field, text in fields)]
                items = ", ".join(f"{label}: {text}" for label, text in labels)
                yield f"{words}export type {name} = [{items}];"
                continue
            lines = [f"{label}: {text};" for label, text in own]
            for field, text in fields:
                mark = "?" if self._may_be_missing(info, field) else ""
                label = _quoted(wire_name(field, naming, is_text=True))
                lines.append(f"{label}{mark}: {text};")
            yield words + _block(name, lines)

    def _may_be_missing(self, info: Any, field: describing.Field) -> bool:
        if field.required:
            return False
        if field.default is NODEFAULT and field.default_factory is NODEFAULT:
            return True
        configuration = getattr(class_of(info), "__struct_config__", None)
        if configuration is not None and configuration.omit_defaults:
            return True
        return self._directions[info.cls] == {"sent"}


def _streams_in(hint: Any) -> Iterator[Any]:
    """Iterate over the stream types within an annotation; msgspec forgets what their items are."""
    if (typing.get_origin(hint) or hint) is RpcStream:
        yield hint
        return
    for each in typing.get_args(hint):
        yield from _streams_in(each)


# -- how TypeScript writes it


def _signature(method: MethodDefinition, types: list[str], result: str) -> str:
    parameters: list[str] = []
    may_be_left_out = True
    listed = zip(method.names, method.defaults, types, strict=True)
    for name, default, text in reversed(list(listed)):
        may_be_left_out &= default is not NO_DEFAULT
        label = f"{name}_" if _RESERVED.fullmatch(name) else name
        if may_be_left_out:
            parameters.append(f"{label}?: {text}")
        else:
            skipped = "" if default is NO_DEFAULT else " | undefined"
            parameters.append(f"{label}: {text}{skipped}")
    return f"{_quoted(_called(method))}({', '.join(reversed(parameters))}): {result};"


def _called(method: MethodDefinition) -> str:
    return method.wire_name.rpartition(".")[2].rpartition(":")[0]


def _words_on(method: MethodDefinition) -> str:
    words = inspect.cleandoc(method.function.__doc__ or "")
    if method.has_cancellation_slot:
        return words
    option = f"{{ methods: {{ {_called(method)}: {{ arity: {len(method.names)} }} }} }}"
    return f"{words}\n\nNeeds `{option}` as an option of `service()`.".strip()


def _words_of(kind: type) -> str:
    words = vars(kind).get("__doc__") or ""
    # Dataclasses and named tuples without a docstring get their signature for one.
    return "" if words.startswith(f"{kind.__name__}(") else inspect.cleandoc(words)


def _documentation(words: str) -> str:
    if not words:
        return ""
    lines = words.replace("*/", "*\\/").splitlines()
    if len(lines) == 1:
        return f"/** {lines[0]} */\n"
    return "\n".join(["/**", *(f" * {line}".rstrip() for line in lines), " */", ""])


def _block(name: str, lines: list[str]) -> str:
    body = _indented("".join(f"{line}\n" for line in lines))
    return f"export interface {name} {{\n{body}}}"


def _indented(text: str) -> str:
    return re.sub(r"^(?=.)", "  ", text, flags=re.MULTILINE)


def _one_of(values: Iterable[Any]) -> str:
    return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)


def _array_of(item: str) -> str:
    return f"{item}[]" if re.fullmatch(r"\w+", item) else f"Array<{item}>"


def _quoted(name: str) -> str:
    return name if _IDENTIFIER.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _name_of(kind: Any) -> str:
    """A name for a class, or for a generic one with types given: `PageOrder` for `Page[Order]`."""
    arguments = typing.get_args(kind)
    name: str = getattr(typing.get_origin(kind) or kind, "__name__", "Value")
    return name + "".join(_pascal(_name_of(each)) for each in arguments)


def _pascal(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))
