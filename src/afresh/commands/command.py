"""What a command is: a value that says what is to be done, and what doing it gives.

Bases and marks for classes of commands, and what can be asked of such a class. Who handles a
command is the commander's business; a class of commands knows of no handler.
"""

from __future__ import annotations

import typing
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import msgspec

from afresh.errors import DefinitionError

if TYPE_CHECKING:
    from typing import Self

    from .context import CommandContext

__all__ = [
    "BackendCommand",
    "Command",
    "CommandOf",
    "Delegating",
    "EventCommand",
    "Outermost",
    "PreparedCommand",
    "SystemCommand",
    "Upcaster",
    "aliases_of",
    "check_command_type",
    "command",
    "result_type_of",
    "tag_of",
    "upcast",
    "version_of",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_C = TypeVar("_C", bound=type)


class CommandOf(Generic[T_co]):
    """Base of commands that are dataclasses or attrs classes; the parameter is the result's type.

    Commands are values: let them be frozen. `Command` is the same for msgspec structs.

    Example:
        ```python
        @dataclass(frozen=True, slots=True)
        class RenameOrder(CommandOf[None]):
            order_id: int
            name: str
        ```
    """

    __slots__ = ()


class Command(CommandOf[T_co], msgspec.Struct, Generic[T_co], frozen=True):
    """Base of commands; the parameter is the type of the result, None for no result.

    Example:
        ```python
        class PlaceOrder(Command[Order], frozen=True):
            user_id: str
            lines: tuple[OrderLine, ...]
        ```
    """


class Outermost:
    """Marks commands that stand for themselves, even when another handler calls them.

    Such a command inherits no context, and has an operation of its own.
    """

    __slots__ = ()


class Delegating(Outermost):
    """Marks commands that only call others, each of which then stands for itself.

    The handler must not change anything by itself.
    """

    __slots__ = ()


class SystemCommand:
    """Marks commands of afresh's own, such as the completion of others: they are not traced when
    another command calls them, nor is what they call.
    """

    __slots__ = ()


class BackendCommand:
    """Marks commands that only backend peers may send."""

    __slots__ = ()


class EventCommand:
    """Marks commands that several handlers may take, or none.

    Each handler runs in a chain of its own, with all filters and a context of its own, all at the
    same time. The call ends when all have ended, with the first error if there are any.

    Example:
        ```python
        class OrderPlaced(Command[None], EventCommand, frozen=True):
            order_id: int
        ```
    """

    __slots__ = ()


class PreparedCommand:
    """Marks commands that check or complete themselves before anything else sees them."""

    __slots__ = ()

    async def prepare(self, context: CommandContext[Any]) -> Self | None:
        """Return the command to go on with, of the same type; None to go on with this one.

        Raises:
            Exception: ends the call.
        """
        raise NotImplementedError


# -- names

Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the fields of a command as they were written in some version, and returns those of the
next."""


@dataclass(frozen=True, slots=True)
class _Names:
    tag: str
    aliases: tuple[str, ...] = ()
    version: int = 1
    upcasters: Mapping[int, Upcaster] = field(default_factory=dict)


_names: weakref.WeakKeyDictionary[type, _Names] = weakref.WeakKeyDictionary()


def command(
    tag: str,
    *,
    aliases: tuple[str, ...] = (),
    version: int = 1,
    upcasters: Mapping[int, Upcaster] | None = None,
) -> Callable[[_C], _C]:
    """Say what a class of commands is called in logs of operations and on the wire.

    Without it, that is the name of the class; subclasses do not share it.

    Args:
        tag: the name, to be kept when the class is renamed or moved.
        aliases: names that it had before, under which it can still be read.
        version: of its fields; to be raised when what is written in logs can't be read by the new
            class. Fields that come with a default, or go, need no new version.
        upcasters: for each version that can still stand in a log, a function that takes its fields,
            as JSON holds them, and returns those of the next version.

    Raises:
        DefinitionError: a name is empty, or an upcaster is for no earlier version.

    Example:
        ```python
        @command("shop.place_order", aliases=("PlaceOrder",))
        class PlaceOrder(Command[Order], frozen=True): ...


        def with_currency(fields: dict[str, Any]) -> dict[str, Any]:
            return {**fields, "price": {"amount": fields["price"], "currency": "EUR"}}


        @command("shop.set_price", version=2, upcasters={1: with_currency})
        class SetPrice(Command[None], frozen=True): ...
        ```
    """
    if not (isinstance(tag, str) and tag and all(aliases)):
        raise DefinitionError('@command takes the name to use: @command("shop.place_order").')
    upcasters = dict(upcasters or {})
    if version < 1 or any(not 1 <= each < version for each in upcasters):
        raise DefinitionError(
            f"@command({tag!r}) of version {version} has upcasters for the versions "
            f"{sorted(upcasters)}: versions count from 1, and upcasters are for earlier ones."
        )
    names = _Names(tag, tuple(aliases), version, upcasters)

    def decorate(cls: _C) -> _C:
        check_command_type(cls)
        _names[cls] = names
        return cls

    return decorate


def tag_of(command_type: type) -> str:
    """Return what a class of commands is called in logs of operations and on the wire."""
    names = _names.get(command_type)
    return command_type.__name__ if names is None else names.tag


def aliases_of(command_type: type) -> tuple[str, ...]:
    """Return the earlier names of a class of commands."""
    names = _names.get(command_type)
    return () if names is None else names.aliases


def version_of(command_type: type) -> int:
    """Return which version of its fields a class of commands has."""
    names = _names.get(command_type)
    return 1 if names is None else names.version


def upcast(command_type: type, fields: dict[str, Any], version: int) -> dict[str, Any]:
    """Return the fields of a command as they are written now, out of those of an earlier version.

    Raises:
        Exception: what an upcaster raises.
    """
    names = _names.get(command_type, _Names(""))
    for each in range(version, names.version):
        upcaster = names.upcasters.get(each)
        if upcaster is not None:
            fields = upcaster(fields)
    return fields


# -- types


def check_command_type(command_type: Any, what: str = "") -> None:
    """Complain of what is no class of commands.

    Args:
        command_type: the class.
        what: begins the message, "Orders.place takes " for example.

    Raises:
        DefinitionError: says what to write instead.
    """
    if not (isinstance(command_type, type) and issubclass(command_type, CommandOf)):
        shown = getattr(command_type, "__qualname__", repr(command_type))
        raise DefinitionError(
            f"{what}{shown}{', which' if what else ''} is no type of commands: derive it from "
            "Command[Result], or from CommandOf[Result] if it is a dataclass or an attrs class."
        )
    result = result_type_of(command_type)
    if issubclass(command_type, EventCommand) and result not in {type(None), Any}:
        raise DefinitionError(
            f"{command_type.__qualname__} is an event, which has no result: derive it from "
            "Command[None]."
        )
    if result is MISSING:
        raise DefinitionError(
            f"{what}{command_type.__qualname__}{', which' if what else ''} does not say what it "
            "results in: derive it from Command[Result], or Command[None] for nothing."
        )


MISSING: Any = object()
"""Stands for the result type of a class that does not say it."""


def result_type_of(command_type: type) -> Any:
    """Return the type that commands of this class result in; `NoneType` for no result."""
    if command_type in {Command, CommandOf}:
        return Any  # of filters: any command
    return _result_type(command_type)


def _result_type(cls: type) -> Any:
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        if not (isinstance(origin, type) and issubclass(origin, CommandOf)):
            continue
        args = typing.get_args(base)
        if origin in {CommandOf, Command}:
            if not args:
                continue
            (found,) = args
        else:
            found = _result_type(origin)
            if isinstance(found, TypeVar) and args:
                found = args[_parameters(origin).index(found)]
        if found is not MISSING:
            return type(None) if found is None else found
    return MISSING


def _parameters(cls: type) -> tuple[Any, ...]:
    parameters: tuple[Any, ...] = getattr(cls, "__parameters__", ())
    return parameters
