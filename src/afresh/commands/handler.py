"""The decorators of methods that handle commands, or are put around that: `command_handler` and
`command_filter`.

A handler in its class keeps its definition; on an instance it is a way into the pipeline of the
commander that the service was added to.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from afresh.errors import DefinitionError, InvalidStateError
from afresh.graph.service import ServiceMember
from afresh.rpc.contracts import rpc_method

if TYPE_CHECKING:
    from .chain import Handler
    from .commander import Commander

__all__ = [
    "BoundCommandHandler",
    "CommandHandler",
    "HandlerDefinition",
    "command_filter",
    "command_handler",
    "commander_of",
    "filter_options",
    "join",
]

C = TypeVar("C")
T = TypeVar("T")
S = TypeVar("S")
_F = TypeVar("_F", bound=Callable[..., Awaitable[Any]])


class HandlerDefinition:
    """A handler as it was declared: its body, its priority, and what it makes stale.

    Args:
        function: the body, an ``async def`` that takes a command.
        priority: its place among filters, highest first; None to take that of the handler that it
            overrides.
    """

    def __init__(self, function: Callable[..., Any], priority: float | None = None) -> None:
        self.function: Callable[..., Any] = function
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self.qualified_name: str = getattr(function, "__qualname__", self.name)
        self.owner: type | None = None
        self.given_priority: float | None = priority
        self.own_invalidates: Callable[[Any, Any, Any], object] | None = None
        self._current: dict[type, bool] = {}
        check_body(function, self.qualified_name, "command handler", ("command",))

    def lineage(self) -> list[HandlerDefinition]:
        """This definition, then those that it overrides, nearest first."""
        found = [self]
        for base in self.owner.__mro__[1:] if self.owner is not None else ():
            attribute = vars(base).get(self.name)
            if isinstance(attribute, CommandHandler):
                found.append(attribute.definition)
        return found

    @property
    def priority(self) -> float:
        """Its place among filters, highest first: as given here, or where it overrides; else 0."""
        given = (definition.given_priority for definition in self.lineage())
        return next((priority for priority in given if priority is not None), 0.0)

    @property
    def invalidates(self) -> Callable[[Any, Any, Any], object] | None:
        """What the command makes stale: a function of the service, the command and the result."""
        return next(
            (
                definition.own_invalidates
                for definition in self.lineage()
                if definition.own_invalidates is not None
            ),
            None,
        )

    def is_current(self, kind: type) -> bool:
        """Whether this is the handler of that name in a class; if not, ``super()`` leads here."""
        found = self._current.get(kind)
        if found is None:
            attribute = next(
                vars(base)[self.name] for base in kind.__mro__ if self.name in vars(base)
            )
            found = getattr(attribute, "definition", None) is self
            self._current[kind] = found
        return found

    def __repr__(self) -> str:
        return f"<command handler {self.qualified_name}>"


class CommandHandler(ServiceMember, Generic[C, T]):
    """A handler in its class; on an instance it is a `BoundCommandHandler`."""

    definition: HandlerDefinition

    def __init__(self, definition: HandlerDefinition) -> None:
        self.definition = definition
        function = definition.function
        self.__doc__ = function.__doc__
        self.__name__: str = definition.name
        self.__qualname__: str = definition.qualified_name
        self.__module__ = function.__module__
        self.__wrapped__: Callable[..., Any] = function
        self.__isabstractmethod__: bool = bool(getattr(function, "__isabstractmethod__", False))

    def __set_name__(self, owner: type, name: str) -> None:
        definition = self.definition
        if definition.owner is None:
            definition.name = self.__name__ = name
            definition.qualified_name = self.__qualname__ = f"{owner.__qualname__}.{name}"
        elif name != definition.name or owner.__name__ != definition.owner.__name__:
            return  # an alias
        definition.owner = owner  # again if a decorator makes the class anew

    @overload
    def __get__(self, instance: None, owner: type) -> CommandHandler[C, T]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> BoundCommandHandler[C, T]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        try:
            home = instance._afresh_commander
            if home.instance is instance:
                return home.bound[self.definition]
        except (AttributeError, KeyError):
            pass
        if instance is None:
            return self
        definition = self.definition
        if definition.is_current(type(instance)):
            return BoundCommandHandler(partial(_refuse, definition, instance), definition, instance)
        return types.MethodType(definition.function, instance)  # super() led here

    def invalidates(self, function: Callable[[Any, C, T], None], /) -> Callable[[Any, C, T], None]:
        """Say what the command makes stale, as a decorator of a method of the same class.

        The method gets the command and its result, and calls the compute methods whose results are
        not to be used any more. It runs once, when the handler has succeeded and before anything
        is committed; it is a plain ``def``.

        Raises:
            DefinitionError: the handler has such a method, or it does not take the two.

        Example:
            ```python
            @place.invalidates
            def _(self, command: PlaceOrder, order: Order) -> None:
                self.for_user(command.user_id)
            ```
        """
        name = f"{self.definition.qualified_name}.invalidates"
        if self.definition.own_invalidates is not None:
            raise DefinitionError(f"{name} is used twice; say all that goes stale in one method.")
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise DefinitionError(
                f"{name} decorates a plain 'def': what goes stale is called, not awaited."
            )
        check_parameters(function, name, ("command", "result"))
        self.definition.own_invalidates = function
        return function

    def adopt(self, owner: type, name: str, override: Any) -> None:
        if not inspect.iscoroutinefunction(override):
            raise DefinitionError(
                f"{owner.__qualname__}.{name} overrides the command handler "
                f"{self.definition.qualified_name} but is not declared with 'async def'."
            )
        handler: CommandHandler[Any, Any] = CommandHandler(HandlerDefinition(override))
        setattr(owner, name, handler)
        handler.__set_name__(owner, name)

    def __call__(self, instance: Any, command: C, /) -> Coroutine[Any, Any, T]:
        """Call the handler of `instance`."""
        bound: Callable[[C], Coroutine[Any, Any, T]] = self.__get__(instance, type(instance))
        return bound(command)

    def __repr__(self) -> str:
        return repr(self.definition)


if TYPE_CHECKING:

    class BoundCommandHandler(Generic[C, T]):
        """A handler of one service: `orders.place`.

        Calling it is calling the commander that the service was added to, with all filters.
        """

        definition: HandlerDefinition
        instance: Any

        def __init__(
            self, call: Callable[[Any], Any], definition: HandlerDefinition, instance: Any
        ) -> None: ...

        def __call__(self, command: C) -> Coroutine[Any, Any, T]:
            """Return a coroutine of the result: the same as `Commander.call`.

            Raises:
                InvalidStateError: the service was not added to a commander.
            """
            ...

else:

    class BoundCommandHandler(partial):
        """A handler of one service: `orders.place`.

        Calling it is calling the commander that the service was added to, with all filters.
        """

        def __new__(cls, call, definition, instance):
            self = super().__new__(cls, call)
            self.definition = definition
            self.instance = instance
            self.__doc__ = definition.function.__doc__
            self.__name__ = definition.name
            self.__qualname__ = definition.qualified_name
            self.__module__ = definition.function.__module__
            self.__wrapped__ = definition.function
            self._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)
            if sys.version_info >= (3, 12):
                inspect.markcoroutinefunction(self)
            return self

        def __repr__(self):
            return f"<command handler {self.definition.qualified_name} of {self.instance!r}>"


def _refuse(definition: HandlerDefinition, instance: Any, command: Any) -> Any:
    raise InvalidStateError(
        f"{definition.qualified_name} was called on {instance!r}, which belongs to no commander: "
        "add it to one first, commander.add(service)."
    )


@overload
def command_handler(
    function: Callable[[S, C], Coroutine[Any, Any, T]], /
) -> CommandHandler[C, T]: ...
@overload
def command_handler(
    *, priority: float
) -> Callable[[Callable[[S, C], Coroutine[Any, Any, T]]], CommandHandler[C, T]]: ...
def command_handler(function: Any = None, /, *, priority: float | None = None) -> Any:
    """Make an async method the handler of a type of commands: that of its parameter.

    Calling the method is calling the command: it goes through the commander that the service was
    added to.

    Args:
        function: the method, when the decorator is used without options.
        priority: its place among filters, highest first; filters of the same priority come before
            it, filters of a lower one can't be reached. 0 by default.

    Raises:
        DefinitionError: the method can't be a handler; says why.

    Example:
        ```python
        class Orders(ComputeService):
            @command_handler
            async def place(self, command: PlaceOrder) -> Order: ...
        ```
    """
    if function is None:
        return lambda method: CommandHandler(HandlerDefinition(method, priority))
    return CommandHandler(HandlerDefinition(function))


_FILTER = "__afresh_filter__"


@overload
def command_filter(function: _F, /) -> _F: ...
@overload
def command_filter(
    *, priority: float = 0, when: Callable[[Any, type, Handler | None], bool] | None = None
) -> Callable[[_F], _F]: ...
def command_filter(
    function: Any = None,
    /,
    *,
    priority: float = 0,
    when: Callable[[Any, type, Handler | None], bool] | None = None,
) -> Any:
    """Put an async method around the handling of commands of a type: that of its first parameter.

    The type may be any base or mark of commands; `CommandOf` stands for all. The method takes the
    command and what goes on with it, and returns the result. Going on again tries again. It is no
    part of what clients can call.

    Args:
        function: the method, when the decorator is used without options.
        priority: its place among the others, highest first; 0 by default.
        when: a method that says whether the filter takes part: takes the type of the commands and
            their handler, None where there is none. Asked once for each type.

    Raises:
        DefinitionError: the method can't be a filter; says why.

    Example:
        ```python
        @command_filter(priority=100)
        async def audit(self, command: CommandOf[Any], proceed: Proceed) -> Any:
            log.info("%r", command)
            return await proceed()
        ```
    """

    def decorate(method: Any) -> Any:
        name = getattr(method, "__qualname__", repr(method))
        check_body(method, name, "command filter", ("command", "proceed"))
        setattr(method, _FILTER, (float(priority), when))
        return rpc_method(served=False)(method)

    return decorate if function is None else decorate(function)


def filter_options(
    attribute: object,
) -> tuple[float, Callable[[Any, type, Handler | None], bool] | None] | None:
    """Return the priority of a method that is a filter, and what says when it takes part; None if
    it is no filter.
    """
    options: tuple[float, Callable[[Any, type, Handler | None], bool] | None] | None
    options = getattr(attribute, _FILTER, None)
    return options


# -- what bodies must look like


def check_body(function: Any, name: str, what: str, parameters: tuple[str, ...]) -> None:
    """Complain of a method that can't be what its decorator makes of it."""
    if isinstance(function, (staticmethod, classmethod, property)):
        raise DefinitionError(
            f"{name}: a {type(function).__name__} can't be a {what}; use a plain method."
        )
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{name} must be declared with 'async def' to be a {what}.")
    check_parameters(function, name, parameters)
    annotations = getattr(inspect.unwrap(function), "__annotations__", {})
    first = list(inspect.signature(function).parameters)[1]
    if first not in annotations:
        raise DefinitionError(
            f"{name}: the parameter {first!r} has no annotation, and that says which commands the "
            f"{what} is for; write '{first}: PlaceOrder' for example."
        )


def check_parameters(function: Callable[..., Any], name: str, expected: tuple[str, ...]) -> None:
    """Complain of a method that does not take what is passed to it."""
    listed = list(inspect.signature(function).parameters.values())[1:]
    positional = [it for it in listed if it.kind in {it.POSITIONAL_ONLY, it.POSITIONAL_OR_KEYWORD}]
    if len(listed) != len(expected) or positional != listed:
        raise DefinitionError(
            f"{name} takes {len(listed)} parameters after self instead of {len(expected)}: "
            f"write 'def {name.rpartition('.')[2]}(self, {', '.join(expected)})'. What else it "
            "needs, its service has, or current_context()."
        )


# -- the commander of a service


_HOME = "_afresh_commander"


class _Home:
    """Whose service an object is. Whoever copies or pickles that belongs to nobody."""

    __slots__ = ("bound", "commander", "instance")

    def __init__(self, commander: Any = None, instance: Any = None) -> None:
        self.commander: Any = commander
        self.instance: Any = instance
        self.bound: dict[HandlerDefinition, BoundCommandHandler[Any, Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _Home, ()


def commander_of(instance: object) -> Commander | None:
    """Return the commander that a service was added to; None if it was not."""
    home = getattr(instance, _HOME, None)
    return home.commander if isinstance(home, _Home) and home.instance is instance else None


def join(instance: object, commander: Commander, definitions: Sequence[HandlerDefinition]) -> None:
    """Let calls of the handlers of `instance` go to a commander.

    Raises:
        DefinitionError: it has another already, or can't remember one.
    """
    other = commander_of(instance)
    if other is not None and other is not commander:
        raise DefinitionError(
            f"{instance!r} belongs to another commander already; make a service of its own for "
            "each."
        )
    home = _Home(commander, instance)
    for definition in definitions:
        home.bound[definition] = BoundCommandHandler(commander.call, definition, instance)
    try:
        object.__setattr__(instance, _HOME, home)
    except AttributeError:
        raise DefinitionError(
            f"Instances of {type(instance).__qualname__} have no __dict__ to keep their commander "
            "in; add '__dict__' to its __slots__, or remove them."
        ) from None
