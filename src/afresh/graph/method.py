"""Compute methods and compute functions: declaring them, and what they are on an instance."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from afresh.errors import DefinitionError

from . import _kernel, causes, registry
from ._context import SCOPE, current
from .keys import Parameters, canonical, is_plain, named_as_tuple
from .options import OPTION_NAMES, ComputedOptions, check_names, default_options
from .producer import Producer, produce
from .scopes import Isolated

if TYPE_CHECKING:
    from .computed import Computed

__all__ = [
    "BoundComputeMethod",
    "ComputeCall",
    "ComputeMethod",
    "Definition",
    "Table",
    "compute_function",
    "compute_method",
]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S")

_TABLES = "_afresh_tables"
"""Where an instance keeps its tables, so that its results live and die with it."""

_KEYS = ("key", "ignore")
"""The options that are about keys and not about results."""

_METHOD_OPTIONS = (*(name for name in OPTION_NAMES if name != "reprocessing"), *_KEYS)


class Definition:
    """A compute method as it was declared: its body, its parameters, its options.

    Args:
        function: the body, an ``async def``.
        given: the options written at the declaration.
        is_method: whether the first parameter is the service.
    """

    def __init__(
        self, function: Callable[..., Any], given: dict[str, Any], *, is_method: bool
    ) -> None:
        self.function = function
        self.is_method = is_method
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self.__name__: str
        self.ignored: tuple[str, ...]
        self.qualified_name: str = getattr(function, "__qualname__", self.name)
        self.module: str = getattr(function, "__module__", "")
        self.owner: type | None = None
        self.in_service: bool = False
        """Whether the class derives from `ComputeService`."""
        self.compiled_call: Any = None
        self.__doc__ = function.__doc__
        self.__name__ = self.name
        self.__qualname__ = self.qualified_name
        self.__module__ = self.module
        self.__wrapped__ = function
        self.__isabstractmethod__: bool = bool(getattr(function, "__isabstractmethod__", False))
        _check_function(function, self.qualified_name)
        self.parameters: Parameters = _parameters(
            function, self.qualified_name, is_method=is_method
        )
        self.given: dict[str, Any] = _check_options(given, self)
        self.plain_types: set[type] = {str, int, bytes, type(None)}
        """Types of arguments that have turned out to be fine as they are."""
        self._options: ComputedOptions | None = None
        self._key_like(self.given)

    # -- options

    @property
    def options(self) -> ComputedOptions:
        """All options: those given here, then those of the method it overrides, then defaults."""
        if self._options is None:
            self._options = self._resolve(default_options())
        return self._options

    def _resolve(self, defaults: ComputedOptions) -> ComputedOptions:
        given: dict[str, Any] = {}
        for definition in reversed(self.lineage()):
            given |= {k: v for k, v in definition.given.items() if k not in _KEYS}
        try:
            return defaults.replace(**given)
        except DefinitionError as error:
            raise DefinitionError(f"{self.qualified_name}: {error}") from None

    def lineage(self) -> list[Definition]:
        """This definition, then those that it overrides, nearest first."""
        found = [self]
        for base in self.owner.__mro__[1:] if self.owner is not None else ():
            attribute = vars(base).get(self.name)
            if isinstance(attribute, _kernel.Method):
                found.append(attribute.definition)
        return found

    # -- in its class

    def named(self, owner: type, name: str) -> None:
        """Called when the class that holds the method is made."""
        from .service import ComputeService

        if self.owner is None:
            self.name = self.__name__ = name
            self.qualified_name = self.__qualname__ = f"{owner.__qualname__}.{name}"
        elif name != self.name or owner.__name__ != self.owner.__name__:
            return  # an alias in the same class, or in another
        self.owner = owner  # again if a decorator makes the class anew, with slots for example
        self.in_service = issubclass(owner, ComputeService)
        for definition in reversed(self.lineage()):
            given = definition.given
            self._key_like({option: given[option] for option in _KEYS if option in given})
        if not self.in_service:  # a service checks its methods itself: see `ComputeService`
            self.check()

    def check(self) -> None:
        """Refuse what can't work in the class that holds the method.

        Raises:
            DefinitionError: says what and why.
        """
        assert self.owner is not None
        if self.owner.__dictoffset__ == 0:
            raise DefinitionError(
                f"{self.qualified_name}: instances of {self.owner.__qualname__} have no __dict__ "
                "to keep results in; add '__dict__' to its __slots__, or remove them."
            )
        _check_defaults(self.ignored, self)
        self._resolve(default_options())

    def table_of(self, instance: Any) -> Table | None:
        """The results of this method for `instance`; None where a subclass overrides the method, so
        that only ``super()`` can have led here.
        """
        tables = _tables_of(instance)
        table: Table | None = tables.get(self)
        if table is not None and table.instance is instance:
            return table
        for kind in type(instance).__mro__:
            attribute = vars(kind).get(self.name)
            if attribute is not None:
                if getattr(attribute, "definition", None) is not self:
                    return None
                break
        if tables and next(iter(tables.values())).instance is not instance:
            tables = _Tables()  # the instance is a copy, and came with the original's
            object.__setattr__(instance, _TABLES, tables)
        table = tables[self] = make_table(self, instance)
        return table

    def bind(self, instance: Any) -> Any:
        """What the method is on `instance`."""
        table = self.table_of(instance)
        if table is None:
            return types.MethodType(self.function, instance)
        return table.bound

    # -- keys

    def _key_like(self, given: dict[str, Any]) -> None:
        """Make keys as `given` says: `key` and `ignore` as declared, here or by what is overridden,
        whose parameters may be others.
        """
        names = self.parameters.names
        if "key" in given:
            self.make_key: Callable[..., Any] | None = self.parameters.spread(given["key"])
        elif self.owner is None:
            self.make_key = None
        if "ignore" in given:
            self.ignored = tuple(name for name in given["ignore"] if name in names)
        elif self.owner is None:
            self.ignored = ()
        self._kept = tuple(i for i, name in enumerate(names) if name not in self.ignored)
        self.plain_keys: bool = (
            self.make_key is None and not self.ignored and self.parameters.is_simple
        )
        """Whether the arguments themselves are the key, as long as their types allow it."""

    def key_of(self, args: tuple[Any, ...]) -> Any:
        """The key of a call with these arguments, one for each parameter.

        Raises:
            TypeError: an argument can't be part of a key; names it.
        """
        if self.make_key is not None:
            made = self.make_key(*args)
            try:
                hash(made)
            except TypeError as error:
                raise TypeError(
                    f"{self.qualified_name}(): key= returned {made!r}, which is not hashable."
                ) from error
            return canonical(made)
        kept = list(args) if not self.ignored else [args[i] for i in self._kept]
        if self.parameters.collects_named:
            kept[-1] = named_as_tuple(kept[-1])
        try:
            key = tuple(map(canonical, kept))
            hash(key)
        except TypeError as error:
            raise self.unhashable(args) from error
        if self.plain_keys:
            self.plain_types.update(kind for kind in map(type, args) if is_plain(kind))
        return key[0] if len(args) == 1 and len(key) == 1 else key

    def unhashable(self, args: tuple[Any, ...]) -> TypeError:
        """The error for arguments that can't be part of a key."""
        for name, value in self.parameters.name_each(args):
            if name in self.ignored:
                continue
            try:
                hash(canonical(value))
            except TypeError:
                return TypeError(
                    f"{self.qualified_name}(): argument {name!r} ({type(value).__name__}) can't be "
                    "part of a cache key because it is not hashable; pass a tuple, a frozenset or "
                    "a frozen dataclass instead, or say how to make a key of the arguments: "
                    "@compute_method(key=...)."
                )
        return TypeError(f"{self.qualified_name}(): the arguments can't be compared.")

    def __repr__(self) -> str:
        kind = "compute method" if self.is_method else "compute function"
        return f"<{kind} {self.qualified_name}>"


class _Tables(dict["Definition", "Table"]):
    """The tables of one instance. Whoever copies or pickles that gets none of them."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Tables, ()


def _tables_of(instance: Any) -> dict[Definition, Table]:
    # Not through `instance.__dict__`: asking for that makes all attributes of the instance slower.
    try:
        tables: dict[Definition, Table] = object.__getattribute__(instance, _TABLES)
    except AttributeError:
        tables = _Tables()
        object.__setattr__(instance, _TABLES, tables)
    return tables


def _check_function(function: Any, name: str) -> None:
    if isinstance(function, (staticmethod, classmethod, property)):
        raise wrong_kind(function, getattr(unwrapped(function), "__qualname__", name))
    if inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"{name} is an async generator; a compute method returns one value. "
            "Return a tuple instead of yielding."
        )
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(
            f"{name} must be declared with 'async def' to be computed and cached."
        )
    annotations = getattr(function, "__annotations__", {})
    if "return" in annotations and annotations["return"] in (None, "None"):
        raise DefinitionError(
            f"{name} is declared to return None; a compute method returns what is to be cached. "
            "Return the value, or make it an ordinary method."
        )


def unwrapped(attribute: Any) -> Any:
    """The function inside a static method, a class method or a property; else what was passed."""
    if isinstance(attribute, property):
        return attribute.fget
    return getattr(attribute, "__func__", attribute)


def wrong_kind(attribute: Any, name: str) -> DefinitionError:
    """The error for a compute method that belongs to no instance."""
    return DefinitionError(
        f"{name}: a {type(attribute).__name__} can't be a compute method; its results belong to an "
        "instance. Use a plain async method, or @compute_function outside the class."
    )


def function_in_class(name: str) -> DefinitionError:
    """The error for a compute function that should be a method."""
    return DefinitionError(
        f"{name} is a @compute_function inside a class; use @compute_method there."
    )


def _parameters(function: Callable[..., Any], name: str, *, is_method: bool) -> Parameters:
    if is_method and not inspect.signature(function).parameters:
        raise DefinitionError(f"{name} has no 'self'; a compute method belongs to an instance.")
    return Parameters(function, skip_self=is_method)


def _check_options(given: dict[str, Any], definition: Definition) -> dict[str, Any]:
    name = definition.qualified_name
    check_names(given, _METHOD_OPTIONS, name)
    given = {option: value for option, value in given.items() if value is not None}
    key = given.get("key")
    if key is not None and not callable(key):
        raise DefinitionError(f"{name}: key={key!r} must be a function of the arguments.")
    ignored = given.get("ignore", ())
    if isinstance(ignored, str):
        raise DefinitionError(f"{name}: ignore= takes a tuple of names: ignore=({ignored!r},).")
    names = definition.parameters.names
    for parameter in ignored:
        if parameter not in names:
            raise DefinitionError(
                f"{name}: ignore= names {parameter!r}, which is no parameter of it; "
                f"it has {', '.join(names) or 'none'}."
            )
    _check_defaults(ignored, definition)
    times = {option: value for option, value in given.items() if option in OPTION_NAMES}
    times.pop("equals", None)  # whether it may stand alone depends on the method it overrides
    try:
        ComputedOptions(**times)
    except DefinitionError as error:
        raise DefinitionError(f"{name}: {error}") from None
    return given


def _check_defaults(ignored: tuple[str, ...], definition: Definition) -> None:
    parameters = definition.parameters
    for name, default in zip(parameters.names, parameters.defaults, strict=True):
        if name in ignored and default is inspect.Parameter.empty:
            raise DefinitionError(
                f"{definition.qualified_name}: the ignored parameter {name!r} needs a default "
                "value, with which the result is computed when nobody passes one."
            )


class Table(Producer):
    """The results of one compute method for one instance (or of one compute function)."""

    __slots__ = ("bound", "definition")

    bound: BoundComputeMethod[Any, Any]

    def __init__(self, definition: Definition, instance: Any, options: ComputedOptions) -> None:
        function: Any = definition.function
        if definition.is_method:
            function = types.MethodType(function, instance)
        body = definition.parameters.spread(function)
        super().__init__(body, options, instance, len(definition.parameters.names))
        self.definition: Definition = definition
        self.is_observed: bool = bool(definition.ignored)
        self.is_idle = True
        self.bound = BoundComputeMethod(self)
        registry.enlist_table(self)

    @property
    def category(self) -> str:
        definition = self.definition
        if not definition.is_method:
            return definition.qualified_name
        return f"{type(self.instance).__qualname__}.{definition.name}"

    def describe(self, computed: Computed[Any]) -> str:
        shown = ", ".join(map(_short, computed.args))
        return f"{self.category}({shown})"

    def stored(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        definition = self.definition
        return tuple(
            default if name in definition.ignored else value
            for name, value, default in zip(
                definition.parameters.names, args, definition.parameters.defaults, strict=True
            )
        )

    def miss(self, key: Any, args: tuple[Any, ...]) -> Any:
        """Return what a call returns that found no result."""
        context = current.get()
        if context is not None and context.state == SCOPE:
            return context.missed(self, key, args)
        return produce(self, key, args, context)

    def compute(
        self, key: Any, args: tuple[Any, ...], caller: Any, want_node: bool = False
    ) -> Coroutine[Any, Any, Any]:
        """Return an awaitable of the result for `key`."""
        return produce(self, key, args, caller, want_node)

    def invalidate_key(self, key: Any, cause: Any) -> bool:
        """Make the result for `key` stale; returns whether there was one."""
        existing = self.existing(key)
        if existing is None:
            return False
        self.invalidate_existing(existing, cause)
        return True

    def invalidate_existing(self, computed: Computed[Any], cause: Any) -> None:
        """Make `computed` stale because its method was called in an invalidation."""
        _kernel.invalidate(computed, cause)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def make_table(definition: Definition, instance: Any) -> Table:
    """Return a new table of the kind that the options ask for."""
    options = definition.options
    if options.consolidates:
        from .consolidation import ConsolidatingTable

        return ConsolidatingTable(definition, instance, options)
    return Table(definition, instance, options)


_surface = ("invalidate", "capture", "existing", "options", "definition")

if TYPE_CHECKING:

    class ComputeCall(Coroutine[Any, Any, T_co]):
        """What a call returns: a coroutine of the result, to await or to hand to a task.

        A type of its own, because inside `invalidating()` a call is complete without being awaited,
        which type checkers do not believe of a plain coroutine.
        """

    class BoundComputeMethod(Generic[P, T]):
        """A compute method of one service instance: `svc.get`. Call it, or use what it carries."""

        table: Table

        def __init__(self, table: Table) -> None: ...

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ComputeCall[T]:
            """Return an awaitable of the cached or computed result."""
            ...

        def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
            """Make the result for these arguments stale; returns whether there was one."""
            ...

        async def capture(self, *args: P.args, **kwargs: P.kwargs) -> Computed[T]:
            """Return the `Computed` behind a call with these arguments, computing it if need be.

            Adds no dependency. A failed computation is returned, not raised.
            """
            ...

        def existing(self, *args: P.args, **kwargs: P.kwargs) -> Computed[T] | None:
            """Return the `Computed` for these arguments if there is one, without computing."""
            ...

        @property
        def options(self) -> ComputedOptions:
            """The options in force."""
            ...

        @property
        def definition(self) -> Definition:
            """The declaration."""
            ...

    class ComputeMethod(Generic[P, T]):
        """A compute method in its class; on an instance it is a `BoundComputeMethod`."""

        definition: Definition

        def __init__(self, definition: Definition) -> None: ...

        @overload
        def __get__(self, instance: None, owner: type) -> ComputeMethod[P, T]: ...
        @overload
        def __get__(
            self, instance: object, owner: type | None = None
        ) -> BoundComputeMethod[P, T]: ...
        def __get__(self, instance: object | None, owner: type | None = None) -> Any: ...

        def __call__(self, instance: Any, /, *args: P.args, **kwargs: P.kwargs) -> ComputeCall[T]:
            """Call the method of `instance`."""
            ...

else:

    class ComputeCall(Coroutine):
        """What a call returns: a coroutine of the result, to await or to hand to a task.

        For annotations; what is returned is no instance of it.
        """

    class BoundComputeMethod(_kernel.Bound):
        """A compute method of one service instance: `svc.get`. Call it, or use what it carries."""

        __slots__ = ("__dict__",)

        surface = _surface

        def __init__(self, table):
            super().__init__(table)
            definition = table.definition
            self.__doc__ = definition.__doc__
            self.__name__ = definition.name
            self.__qualname__ = definition.qualified_name
            self.__module__ = definition.module
            self.__wrapped__ = definition.function
            self.__signature__ = definition.parameters.signature
            # What frameworks ask to tell async callables.
            self._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)
            if sys.version_info >= (3, 12):
                inspect.markcoroutinefunction(self)

        def invalidate(self, *args, **kwargs):
            """Make the result for these arguments stale; returns whether there was one."""
            key, _ = self._key(*args, **kwargs)
            return self.table.invalidate_key(key, causes.here())

        async def capture(self, *args, **kwargs):
            """Return the `Computed` behind a call with these arguments, computing it if need be."""
            key, args = self._key(*args, **kwargs)
            return await self.table.compute(key, args, Isolated(), True)

        def existing(self, *args, **kwargs):
            """Return the `Computed` for these arguments if there is one, without computing."""
            key, _ = self._key(*args, **kwargs)
            return self.table.existing(key)

        @property
        def options(self):
            """The options in force."""
            return self.table.definition.options

        @property
        def definition(self):
            """The declaration."""
            return self.table.definition

        def __set_name__(self, owner, name):
            from .service import ComputeService

            if not issubclass(owner, ComputeService):  # which looks for itself
                raise function_in_class(f"{owner.__qualname__}.{name}")

        def __repr__(self):
            return repr(self.table.definition)

    ComputeMethod = _kernel.Method


@overload
def compute_method(
    function: Callable[Concatenate[S, P], Awaitable[T]], /
) -> ComputeMethod[P, T]: ...
@overload
def compute_method(
    *,
    keep_alive: float | None = None,
    auto_invalidate: float | None = None,
    invalidation_delay: float | None = None,
    transient_error_delay: float | None = None,
    error_delay: float | None = None,
    consolidate: float | None = None,
    equals: Callable[[Any, Any], bool] | None = None,
    key: Callable[..., Any] | None = None,
    ignore: tuple[str, ...] | None = None,
) -> Callable[[Callable[Concatenate[S, P], Awaitable[T]]], ComputeMethod[P, T]]: ...
def compute_method(function: Any = None, /, **options: Any) -> Any:  # noqa: D417
    """Make an async method a compute method: its results are cached, and know what they came from.

    Times are seconds; `math.inf` means never; what is not given comes from the method that this one
    overrides, then from `default_options()`.

    Args:
        function: the method, when the decorator is used without options.
        keep_alive: how long an unused result stays when nobody holds it and nothing depends on it.
        auto_invalidate: a value goes stale this long after it was computed.
        invalidation_delay: an invalidation takes effect this much later.
        transient_error_delay: how long an error that may pass is served.
        error_delay: how long any other error is served.
        consolidate: on invalidation, wait this long, compute anew, and tell dependants only if the
            result differs.
        equals: compares two values for `consolidate`; ``==`` by default.
        key: makes the key of a call from its arguments, for those that are not hashable.
        ignore: parameters that are not part of the key; each needs a default.

    Raises:
        DefinitionError: the method or an option can't work; says which and why.

    Example:
        ```python
        class Counters(ComputeService):
            @compute_method(keep_alive=300)
            async def get(self, key: str) -> int: ...
        ```
    """
    if function is None:
        return lambda method: compute_method_of(method, options)
    return compute_method_of(function, options)


def compute_method_of(function: Any, options: dict[str, Any]) -> ComputeMethod[Any, Any]:
    """Return the compute method with this body and these options."""
    return ComputeMethod(Definition(function, options, is_method=True))


@overload
def compute_function(function: Callable[P, Awaitable[T]], /) -> BoundComputeMethod[P, T]: ...
@overload
def compute_function(
    *,
    keep_alive: float | None = None,
    auto_invalidate: float | None = None,
    invalidation_delay: float | None = None,
    transient_error_delay: float | None = None,
    error_delay: float | None = None,
    consolidate: float | None = None,
    equals: Callable[[Any, Any], bool] | None = None,
    key: Callable[..., Any] | None = None,
    ignore: tuple[str, ...] | None = None,
) -> Callable[[Callable[P, Awaitable[T]]], BoundComputeMethod[P, T]]: ...
def compute_function(function: Any = None, /, **options: Any) -> Any:
    """Make an async function outside a class a compute function.

    It takes the options of `compute_method`, and has what a compute method has on an instance.

    Example:
        ```python
        @compute_function(auto_invalidate=3600)
        async def rate(currency: str) -> float: ...
        ```
    """

    def decorate(body: Any) -> BoundComputeMethod[Any, Any]:
        definition = Definition(body, options, is_method=False)
        return make_table(definition, None).bound

    return decorate if function is None else decorate(function)
