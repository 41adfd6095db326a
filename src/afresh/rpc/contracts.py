"""Contracts: what can be called on a service, read once from the annotations of an ordinary class.

Every public ``async def`` of the class, inherited ones included, is a method of the contract; its
annotations say how arguments and results are read and written. `describe` works all of that out
ahead of the first call. How values become bytes is the formats' part, and where a call goes the
hub's. Methods of other kinds than plain ones, compute methods above all, are made known by a
`CallKind` from outside.
"""

from __future__ import annotations

import inspect
import math
import types
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias, TypeVar, cast, overload

from afresh.errors import DefinitionError

from .formats import NO_DEFAULT
from .naming import PYTHON, NamingPolicy, wire_name_of
from .signatures import Signature

__all__ = [
    "NO_DEFAULT",
    "REGULAR",
    "SURVIVE_PEER_CHANGE",
    "SURVIVE_RECONNECT",
    "WAIT_FOR_CONNECTION",
    "CallKind",
    "MethodDefinition",
    "NoWait",
    "ServiceDefinition",
    "Timeouts",
    "describe",
    "rpc_method",
    "rpc_service",
]

WAIT_FOR_CONNECTION: Final = 1
"""A call waits until there is a connection."""
SURVIVE_RECONNECT: Final = 2
"""A call goes on when the connection to the same peer is made again."""
SURVIVE_PEER_CHANGE: Final = 6
"""A call is sent again when another peer answers at the address; includes `SURVIVE_RECONNECT`."""


class _NoWaitMark:
    __slots__ = ()

    def __repr__(self) -> str:
        return "NoWait"


_NO_WAIT = _NoWaitMark()

NoWait: TypeAlias = Annotated[None, _NO_WAIT]
"""The result annotation of a method that is fire-and-forget: the caller learns neither of its end
nor of its failure, and what is sent while there is no connection is lost. Awaiting it gives None.
"""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a call may take before it fails on the caller's side, in seconds.

    Args:
        connect: until there is a connection to send it over.
        run: from then until the answer.
    """

    connect: float = math.inf
    run: float = math.inf


class CallKind:
    """What sort of call a method is. RPC itself knows plain ones; subclass to make others known."""

    id: int = 0
    """The call type on the wire."""
    name: str = "regular"
    """For messages."""
    timeouts: Timeouts = Timeouts()
    """The time-outs of methods that say nothing of theirs."""
    backend_timeouts: Timeouts = Timeouts()
    """The same for methods of backend services."""
    flags: int | None = None
    """The only execution mode that methods of this kind can have; None leaves it to them."""

    def function_of(self, attribute: object) -> Callable[..., Any] | None:
        """Return the function behind `attribute` of a class if it is a method of this kind."""
        if inspect.isfunction(attribute) and (
            inspect.iscoroutinefunction(attribute) or _MARK in vars(attribute)
        ):
            return None if inspect.isasyncgenfunction(attribute) else attribute
        return None

    def is_backend_only(self, types: Sequence[Any]) -> bool:
        """Whether only backend peers may call a method with parameters of these types, whatever its
        service says.
        """
        return False


REGULAR: CallKind = CallKind()
"""A plain ``async def``."""

_MARK = "__afresh_rpc__"

_Options: TypeAlias = dict[str, Any]

_C = TypeVar("_C", bound=type)
_F = TypeVar("_F")

_service_options: weakref.WeakKeyDictionary[type, _Options] = weakref.WeakKeyDictionary()


def rpc_service(*, name: str | None = None, backend: bool | None = None) -> Callable[[_C], _C]:
    """Say how a contract is served.

    Args:
        name: what it is called on the wire, whatever the naming policy; subclasses do not share it.
        backend: whether only backend peers may call it; subclasses do the same unless they say
            otherwise.

    Example:
        ```python
        @rpc_service(name="IOrders")
        class Orders(ComputeService): ...
        ```
    """
    options = {"name": name, "backend": backend}

    def decorate(contract: _C) -> _C:
        _service_options[contract] = options
        return contract

    return decorate


@overload
def rpc_method(function: _F, /) -> _F: ...
@overload
def rpc_method(
    *,
    name: str | None = None,
    cancellation_slot: bool | None = None,
    timeouts: Timeouts | None = None,
    wait_for_connection: bool | None = None,
    survive_reconnect: bool | None = None,
    survive_peer_change: bool | None = None,
    served: bool | None = None,
) -> Callable[[_F], _F]: ...
def rpc_method(function: Any = None, /, **options: Any) -> Any:  # noqa: D417
    """Say how a method of a contract is called. What is not given comes from the method that this
    one overrides.

    Without arguments it marks a function as a method where it does not look like one: a decorator
    may have put an ordinary function around the ``async def``.

    Args:
        name: what it is called on the wire, without the arity. Methods of one name are told apart
            by their number of parameters only.
        cancellation_slot: whether the arity on the wire counts one parameter more, as for .NET
            methods that end with a CancellationToken; True by default.
        timeouts: when a call fails on the caller's side.
        wait_for_connection: whether a call made while there is no connection waits for one rather
            than fails; True by default.
        survive_reconnect: whether a call goes on when the connection to the same peer was made
            again; True by default.
        survive_peer_change: whether a call is sent again when another peer, a restarted server for
            example, answers at the address, which may repeat it; True by default.
        served: False keeps a public method out of the contract.

    Example:
        ```python
        class Orders(ComputeService):
            @rpc_method(timeouts=Timeouts(connect=1.5, run=10), survive_peer_change=False)
            async def place(self, order: Order) -> str: ...
        ```
    """

    def decorate(method: Any) -> Any:
        body = inspect.unwrap(method)
        marks = vars(method if inspect.isfunction(method) else body)
        marks[_MARK] = marks.get(_MARK, {}) | given
        return method

    given = {option: value for option, value in options.items() if value is not None}
    return decorate if function is None else decorate(function)


class MethodDefinition:
    """A method of a contract, with all that a call needs to know worked out beforehand."""

    __slots__ = (
        "_bind",
        "_by_position",
        "_named_only",
        "defaults",
        "flags",
        "function",
        "has_cancellation_slot",
        "is_backend",
        "is_no_wait",
        "kind",
        "name",
        "names",
        "result_type",
        "service",
        "timeouts",
        "types",
        "wire_name",
        "wire_names",
    )

    service: ServiceDefinition
    name: str
    """The attribute of the class."""
    wire_name: str
    """The full name on the wire, ``Orders.for_user:2``."""
    wire_names: tuple[str, ...]
    """`wire_name`, and those of calls that leave out parameters with defaults at the end."""
    kind: CallKind
    function: Callable[..., Any]
    """The function in the contract; what is called is that of the implementation."""
    names: tuple[str, ...]
    """The parameters."""
    types: tuple[Any, ...]
    """Their types, as annotated."""
    defaults: tuple[Any, ...]
    """Their defaults, `NO_DEFAULT` where there is none."""
    result_type: Any
    """The type of the awaited result; None for no result."""
    is_no_wait: bool
    is_backend: bool
    timeouts: Timeouts
    flags: int
    """The execution mode: the sum of `WAIT_FOR_CONNECTION` and what a call survives."""
    has_cancellation_slot: bool

    def __init__(
        self,
        service: ServiceDefinition,
        name: str,
        kind: CallKind,
        function: Callable[..., Any],
        owner: type,
        options: _Options,
    ) -> None:
        title = f"{service.contract.__qualname__}.{name}"
        self.service = service
        self.name = name
        self.kind = kind
        self.function = function
        signature = Signature(function, title, contract=service.contract, owner=owner)
        self.names = signature.names
        self.types = signature.types
        self.defaults = signature.defaults
        result = signature.result
        self.is_no_wait = any(mark is _NO_WAIT for mark in getattr(result, "__metadata__", ()))
        self.result_type = None if self.is_no_wait or result is types.NoneType else result
        self.is_backend = service.is_backend or kind.is_backend_only(self.types)
        self.timeouts = options.get("timeouts") or (
            kind.backend_timeouts if self.is_backend else kind.timeouts
        )
        self.flags = _flags(options, kind, self.is_no_wait, title)
        self.has_cancellation_slot = options.get("cancellation_slot", True)
        wire_name = options.get("name") or service.naming.method_name(name)
        arity = len(self.names) + self.has_cancellation_slot
        self.wire_names = tuple(
            wire_name_of(service.wire_name, wire_name, arity - omitted)
            for omitted in range(signature.optional + 1)
        )
        self.wire_name = self.wire_names[0]
        self._bind = signature.bind
        self._named_only = signature.named_only
        self._by_position = -1 if self._named_only else len(self.names)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the values of a call, one for each parameter, defaults filled in.

        Raises:
            TypeError: the arguments do not fit; in Python's own words.
        """
        if not kwargs and len(args) == self._by_position:
            return args
        values: tuple[Any, ...] = self._bind(*args, **kwargs)
        return values

    def of(self, implementation: object) -> Callable[..., Awaitable[Any]]:
        """Return the method of `implementation`, to be called with one value for each parameter.

        Raises:
            DefinitionError: there is no such method.
        """
        method: Callable[..., Awaitable[Any]] | None = getattr(implementation, self.name, None)
        if not callable(method):
            raise DefinitionError(
                f"{implementation!r} can't be served as {self.service.contract.__qualname__}: it "
                f"has no method {self.name!r}."
            )
        named = self._named_only
        if not named:
            return method
        first = len(self.names) - len(named)

        def call(*values: Any) -> Awaitable[Any]:
            return method(*values[:first], **dict(zip(named, values[first:], strict=True)))

        return call

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.wire_name}>"


class ServiceDefinition:
    """A contract as it is served and called under one naming policy."""

    __slots__ = (
        "__weakref__",
        "contract",
        "endpoints",
        "is_backend",
        "methods",
        "naming",
        "wire_name",
    )

    contract: type
    naming: NamingPolicy
    wire_name: str
    is_backend: bool
    """Whether only backend peers may call it."""
    methods: dict[str, MethodDefinition]
    """By attribute of the class."""
    endpoints: dict[str, MethodDefinition]
    """By every full name under which a call may come in; see `MethodDefinition.wire_names`."""

    def __init__(
        self,
        contract: type,
        naming: NamingPolicy,
        kinds: Sequence[CallKind],
        name: str | None = None,
    ) -> None:
        if not isinstance(contract, type):
            raise DefinitionError(f"A contract is a class, and {contract!r} is none.")
        own = _service_options.get(contract, {})
        self.contract = contract
        self.naming = naming
        self.wire_name = name or own.get("name") or naming.service_name(contract)
        self.is_backend = next(
            (
                options["backend"]
                for base in contract.__mro__
                if (options := _service_options.get(base)) and options["backend"] is not None
            ),
            False,
        )
        self.methods = {method.name: method for method in _methods(self, kinds)}
        if not self.methods:
            raise DefinitionError(
                f"{contract.__qualname__} has no method that could be called: give it one that is "
                "declared with 'async def' and whose name does not start with '_', or keep it "
                "within this program: add(…, is_served=False)."
            )
        self.endpoints = _endpoints(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.wire_name} of {self.contract.__qualname__}>"


_described: weakref.WeakValueDictionary[tuple[Any, ...], ServiceDefinition] = (
    weakref.WeakValueDictionary()
)


def describe(
    contract: type,
    naming: NamingPolicy = PYTHON,
    kinds: Sequence[CallKind] = (REGULAR,),
    name: str | None = None,
) -> ServiceDefinition:
    """Return what can be called on services of this class; the same object for the same arguments
    as long as somebody holds it.

    Args:
        contract: the class.
        naming: what names become on the wire.
        kinds: the kinds of calls that are known, the most special first.
        name: what the service is called on the wire, before what the class says of it.

    Raises:
        DefinitionError: the class can't be a contract; says what to write instead.
    """
    key = contract, naming, tuple(kinds), name
    found = _described.get(key)
    if found is None:
        found = _described[key] = ServiceDefinition(contract, naming, kinds, name)
    return found


# -- which methods


def _methods(service: ServiceDefinition, kinds: Sequence[CallKind]) -> Iterator[MethodDefinition]:
    contract = service.contract
    lineages: dict[str, list[tuple[type, Any]]] = {}
    for base in contract.__mro__:
        for name, attribute in vars(base).items():
            if not name.startswith("_"):
                lineages.setdefault(name, []).append((base, attribute))
    for name, lineage in lineages.items():
        options: _Options = {}
        for _, attribute in reversed(lineage):
            options |= _marks_of(attribute)
        if not options.get("served", True):
            continue
        owner, attribute = lineage[0]
        for kind in kinds:
            function = kind.function_of(attribute)
            if function is not None:
                yield MethodDefinition(service, name, kind, function, owner, options)
                break
        else:
            _refuse_method(attribute, f"{contract.__qualname__}.{name}")


def _marks_of(attribute: object) -> _Options:
    for layer in (attribute, inspect.unwrap(cast(Any, attribute))):
        marks: _Options | None = getattr(layer, _MARK, None)
        if marks:
            return marks
    return {}


def _refuse_method(attribute: object, title: str) -> None:
    """Complain of what was probably meant to be a method, and let anything else be."""
    body = inspect.unwrap(cast(Any, attribute))
    if not inspect.isfunction(body) or isinstance(attribute, (staticmethod, classmethod)):
        return
    if inspect.isasyncgenfunction(body):
        raise DefinitionError(
            f"{title} is an async generator. Declare it with '-> RpcStream[T]', and let it return "
            "RpcStream(…) around the generator."
        )
    leave_it_out = "or leave it out with @rpc_method(served=False)."
    if inspect.iscoroutinefunction(body) and inspect.isfunction(attribute):
        raise DefinitionError(
            f"{title} is hidden behind a function that is no 'async def'; mark that with "
            f"@rpc_method, {leave_it_out}"
        )
    if inspect.iscoroutinefunction(body):
        raise DefinitionError(
            f"{title} is a {type(attribute).__name__}, which this hub can't serve. Make such "
            "methods known with RpcHub(kinds=…), as App and connect() do for compute methods, "
            f"{leave_it_out}"
        )
    raise DefinitionError(
        f"{title} can't be called from elsewhere. Declare it with 'async def', or keep it out of "
        "the contract: by a name that starts with '_', or with @rpc_method(served=False)."
    )


def _endpoints(service: ServiceDefinition) -> dict[str, MethodDefinition]:
    endpoints: dict[str, MethodDefinition] = {}
    for method in service.methods.values():
        other = endpoints.setdefault(method.wire_name, method)
        if other is not method:
            raise DefinitionError(
                f"{service.contract.__qualname__}: {other.name} and {method.name} are both "
                f"{method.wire_name!r} on the wire, where methods of one name differ by the number "
                "of parameters only; give one of them another name with @rpc_method(name=…)."
            )
    # A call that leaves out parameters goes to the method that has the fewest to leave out.
    for method in sorted(service.methods.values(), key=lambda method: len(method.names)):
        for name in method.wire_names:
            endpoints.setdefault(name, method)
    return endpoints


# -- how they run


_FLAGS = {
    "wait_for_connection": WAIT_FOR_CONNECTION,
    "survive_reconnect": SURVIVE_RECONNECT,
    "survive_peer_change": SURVIVE_PEER_CHANGE,
}


def _flags(options: _Options, kind: CallKind, is_no_wait: bool, title: str) -> int:
    if is_no_wait and kind.id != REGULAR.id:
        raise DefinitionError(
            f"{title} is a {kind.name} call, which lives by its answer: it can't return NoWait."
        )
    given = [option for option in _FLAGS if option in options]
    if is_no_wait or kind.flags is not None:
        if given:
            what = "is not answered" if is_no_wait else f"is a {kind.name} call"
            raise DefinitionError(f"{title} {what}: @rpc_method can't set {given[0]} for it.")
        return 0 if is_no_wait else kind.flags or 0
    flags = WAIT_FOR_CONNECTION if options.get("wait_for_connection", True) else 0
    survives_reconnect = options.get("survive_reconnect")
    if options.get("survive_peer_change", survives_reconnect is not False):
        if survives_reconnect is False:
            raise DefinitionError(
                f"{title}: a call that survives the change of the peer survives a reconnect too; "
                "leave out survive_reconnect=False or survive_peer_change=True."
            )
        return flags | SURVIVE_PEER_CHANGE
    return flags | (SURVIVE_RECONNECT if survives_reconnect is not False else 0)
