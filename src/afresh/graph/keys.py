"""Arguments as cache keys: one spelling for every way to write the same call, and types that count.

A key is built from the arguments in the order of the parameters, defaults filled in, whether they
came by position or by name. Python calls ``1``, ``True`` and ``1.0`` equal; a cache must not, so
such look-alikes are keyed together with their type. Arguments that cannot be hashed are refused
with an error that names them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Iterator
from decimal import Decimal
from numbers import Number
from operator import itemgetter
from typing import Any

__all__ = ["Parameters", "canonical", "is_plain", "named_as_tuple"]

_TYPED = object()
"""Starts every key that carries its type, so that no tuple of a user's own can look like one."""

_LOOK_ALIKES = (str, bytes, Number, tuple, frozenset, Decimal)
"""Types whose instances may equal instances of another type."""

_STARS: dict[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}

_EXACT = frozenset({str, bytes, int, type(None)})


def is_plain(kind: type) -> bool:
    """Whether values of exactly this type can be keys as they are: equal only to their own kind."""
    return kind in _EXACT or not issubclass(kind, _LOOK_ALIKES)


def canonical(value: Any) -> Hashable:
    """Return what stands for `value` in a key: itself where that is exact, else with its type."""
    kind = type(value)
    if kind is tuple:
        return tuple(map(canonical, value))
    if is_plain(kind):
        return value  # type: ignore[no-any-return]
    if issubclass(kind, (tuple, frozenset)):
        items = map(canonical, value)
        return (_TYPED, kind, tuple(items) if issubclass(kind, tuple) else frozenset(items))
    if isinstance(value, (float, complex, Decimal)):
        if value != value:  # noqa: PLR0124 - the one test for a NaN that all three types have
            return (_TYPED, kind, "nan")  # a NaN must find its own entry again
        if isinstance(value, float):
            return (_TYPED, kind, value, math.copysign(1.0, value))
        return (_TYPED, kind, value, str(value))  # tells 1.0 from 1.00, and the zeros' signs
    return (_TYPED, kind, value)


def named_as_tuple(named: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return the collected keyword arguments of a call in an order of their own."""
    return tuple(sorted(named.items(), key=itemgetter(0)))


class Parameters:
    """The parameters of a compute method after `self`, and how a call's arguments line up.

    Args:
        function: the method's body, or a function.
        skip_self: whether the first parameter is the service and does not count.
    """

    __slots__ = (
        "_bind",
        "_kinds",
        "_spread",
        "collects_named",
        "defaults",
        "is_simple",
        "names",
        "signature",
        "source",
    )

    def __init__(self, function: Callable[..., Any], *, skip_self: bool) -> None:
        signature = inspect.signature(function)
        listed = list(signature.parameters.values())[1 if skip_self else 0 :]
        self.signature: inspect.Signature = signature.replace(parameters=listed)
        self.names: tuple[str, ...] = tuple(parameter.name for parameter in listed)
        self.defaults: tuple[Any, ...] = tuple(parameter.default for parameter in listed)
        self.source: str = ", ".join(_declarations(listed))
        """The parameters as source text, with `_defaults[i]` for the i-th default."""
        names = "".join(f"{name}, " for name in self.names)
        self._bind = eval(f"lambda _defaults: lambda {self.source}: ({names})")(self.defaults)
        # What Python says of arguments that do not fit names the function by this.
        self._bind.__qualname__ = getattr(function, "__qualname__", self._bind.__qualname__)
        self._kinds = tuple(parameter.kind for parameter in listed)
        positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        self.is_simple: bool = positional.issuperset(self._kinds)
        """Whether the arguments can all be handed on by position."""
        self.collects_named: bool = inspect.Parameter.VAR_KEYWORD in self._kinds
        """Whether the last parameter collects keyword arguments."""
        spread = ", ".join(map(_handed_on, listed))
        self._spread = eval(f"lambda _body: lambda {', '.join(self.names)}: _body({spread})")

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the arguments of a call, one for each parameter: `*args` and `**kwargs` count as
        one each, a tuple and a dict.

        Raises:
            TypeError: the arguments do not fit the parameters.
        """
        bound: tuple[Any, ...] = self._bind(*args, **kwargs)
        return bound

    def name_each(self, args: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
        """Iterate over the arguments of a call, as `bind` lines them up, and their names; those
        that were collected come one by one: ``rest[0]``, and by the names that the caller gave.
        """
        for name, kind, value in zip(self.names, self._kinds, args, strict=True):
            if kind is inspect.Parameter.VAR_POSITIONAL:
                yield from ((f"{name}[{i}]", item) for i, item in enumerate(value))
            elif kind is inspect.Parameter.VAR_KEYWORD:
                yield from value.items()
            else:
                yield name, value

    def spread(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """Return what calls `body` when given one argument for each parameter, as `bind` lines
        them up.
        """
        if self.is_simple:
            return body
        call: Callable[..., Any] = self._spread(body)
        return call


def _handed_on(parameter: inspect.Parameter) -> str:
    name = parameter.name
    if parameter.kind is parameter.KEYWORD_ONLY:
        return f"{name}={name}"
    return _STARS.get(parameter.kind, "") + name


def _declarations(listed: list[inspect.Parameter]) -> list[str]:
    declarations: list[str] = []
    for index, parameter in enumerate(listed):
        before = listed[index - 1].kind if index else None
        kind = parameter.kind
        if before is parameter.POSITIONAL_ONLY and kind is not parameter.POSITIONAL_ONLY:
            declarations.append("/")
        if kind is parameter.KEYWORD_ONLY and before not in {
            parameter.KEYWORD_ONLY,
            parameter.VAR_POSITIONAL,
        }:
            declarations.append("*")
        default = "" if parameter.default is parameter.empty else f"=_defaults[{index}]"
        declarations.append(f"{_STARS.get(kind, '')}{parameter.name}{default}")
    if listed and listed[-1].kind is inspect.Parameter.POSITIONAL_ONLY:
        declarations.append("/")
    return declarations
