"""What a function of a contract takes and gives, as its annotations say it.

All of it is resolved and checked when the contract is described, so that a call has nothing left to
find out.
"""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from afresh.errors import DefinitionError

from .formats import NO_DEFAULT

__all__ = ["Signature"]

_ITERATORS = {
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
}


class Signature:
    """The parameters of a method after `self`, their types, and the type of the result.

    Args:
        function: the method's body.
        title: its name, for messages.
        contract: the class whose methods are wanted.
        owner: the class that the method is defined in, the same or a base of it.

    Raises:
        DefinitionError: callers elsewhere could not know what to send, or what they get.
    """

    __slots__ = ("bind", "defaults", "named_only", "names", "optional", "result", "types")

    def __init__(
        self, function: Callable[..., Any], title: str, *, contract: type, owner: type
    ) -> None:
        listed = list(inspect.signature(function).parameters.values())[1:]
        for parameter in listed:
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
                raise DefinitionError(
                    f"{title} takes '{parameter}', whose number and types a caller elsewhere "
                    "can't know; take a list or a dict, and say of what."
                )
        hints = _hints_of(function, title, contract, owner)
        self.names: tuple[str, ...] = tuple(parameter.name for parameter in listed)
        self.types: tuple[Any, ...] = tuple(_type_of(hints, name, title) for name in self.names)
        self.defaults: tuple[Any, ...] = tuple(parameter.default for parameter in listed)
        """`NO_DEFAULT` where there is none."""
        self.result: Any = _result_of(hints, title)
        """`NoneType` for nothing."""
        self.named_only: tuple[str, ...] = tuple(
            parameter.name for parameter in listed if parameter.kind is parameter.KEYWORD_ONLY
        )
        """The last parameters, which arguments are given to by name only."""
        self.optional: int = next(
            (i for i, default in enumerate(reversed(self.defaults)) if default is NO_DEFAULT),
            len(listed),
        )
        """How many parameters have defaults, counted from the last."""
        self.bind: Callable[..., tuple[Any, ...]] = _binder(listed, title)
        """Lines up the arguments of a call, one value for each parameter."""


def _hints_of(
    function: Callable[..., Any], title: str, contract: type, owner: type
) -> dict[str, Any]:
    try:
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except NameError:  # it may be defined in the body of the class
            hints = typing.get_type_hints(function, None, dict(vars(owner)), include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"{title}: the annotations name {error.name!r}, which does not exist in module "
            f"{owner.__module__!r} at run time; define or import it there, and not only under "
            "TYPE_CHECKING or within a function."
        ) from None
    except Exception as error:
        raise DefinitionError(f"{title}: its annotations can't be read: {error}") from error
    variables = _type_variables(contract).get(owner, {})
    hints = {name: _filled_in(hint, variables) for name, hint in hints.items()}
    for hint in hints.values():
        if isinstance(hint, TypeVar) or (_open_in(hint) and not isinstance(hint, type)):
            raise DefinitionError(
                f"{title}: {hint} stands for any type, and what is read from the wire needs one; "
                "write it out, or derive the contract from the generic class with its types given."
            )
    return hints


def _type_variables(contract: type) -> dict[Any, dict[Any, Any]]:
    """What the type variables of each generic base of `contract` stand for."""
    found: dict[Any, dict[Any, Any]] = {}
    for derived in contract.__mro__:
        own = found.get(derived, {})
        for base in vars(derived).get("__orig_bases__", ()):
            origin = typing.get_origin(base)
            given = (_filled_in(each, own) for each in typing.get_args(base))
            found[origin] = dict(zip(_open_in(origin), given, strict=False))
    return found


def _open_in(hint: Any) -> tuple[Any, ...]:
    names: tuple[Any, ...] = getattr(hint, "__parameters__", ())
    return names


def _filled_in(hint: Any, variables: dict[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return variables.get(hint, hint)
    if isinstance(hint, type) or not _open_in(hint):
        return hint
    return hint[tuple(variables.get(name, name) for name in _open_in(hint))]


def _type_of(hints: dict[str, Any], name: str, title: str) -> Any:
    if name not in hints:
        raise DefinitionError(
            f"{title}: the parameter {name!r} has no annotation, and what is read from the wire "
            f"needs a type; write '{name}: str' for example."
        )
    return hints[name]


def _result_of(hints: dict[str, Any], title: str) -> Any:
    if "return" not in hints:
        raise DefinitionError(
            f"{title} does not say what it returns, and what is read from the wire needs a type; "
            "write '-> int' for example, '-> None' for nothing, '-> NoWait' for a call that is "
            "not answered at all."
        )
    result = hints["return"]
    if result in _ITERATORS or typing.get_origin(result) in _ITERATORS:
        raise DefinitionError(
            f"{title} returns an async iterator. Declare it with '-> RpcStream[T]', and let it "
            "return RpcStream(…) around the iterator."
        )
    return result


def _binder(listed: list[inspect.Parameter], title: str) -> Callable[..., tuple[Any, ...]]:
    """What lines up arguments, made by Python's own rules and with its own errors."""
    bare = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else _Default(index),
        )
        for index, parameter in enumerate(listed)
    ]
    declared = str(inspect.Signature(bare))[1:-1]
    values = "".join(f"{parameter.name}, " for parameter in listed)
    make = eval(f"lambda _defaults: lambda {declared}: ({values})")
    bind: Callable[..., tuple[Any, ...]] = make([parameter.default for parameter in listed])
    bind.__qualname__ = title
    return bind


class _Default:
    """Shows, in the source of a binder, as the place where a default is found."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __repr__(self) -> str:
        return f"_defaults[{self._index}]"
