"""A compute method as it was declared: its body, its parameters, its options, and its keys."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from afresh.errors import DefinitionError

from . import _kernel
from .keys import Parameters, canonical, is_plain, named_as_tuple
from .options import OPTION_NAMES, ComputedOptions, check_names, default_options

if TYPE_CHECKING:
    from .table import Table

__all__ = ["Definition", "function_in_class", "unwrapped", "wrong_kind"]

TABLES = "_afresh_tables"
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
            object.__setattr__(instance, TABLES, tables)
        from .table import make_table

        table = tables[self] = make_table(self, instance)
        return table

    def put_table(self, instance: Any, table: Table) -> None:
        """Let the results for `instance`, which has none yet, be kept in `table`."""
        _tables_of(instance)[self] = table

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
        tables: dict[Definition, Table] = object.__getattribute__(instance, TABLES)
    except AttributeError:
        tables = _Tables()
        object.__setattr__(instance, TABLES, tables)
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
