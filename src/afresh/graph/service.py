"""`ComputeService`: the base of classes with compute methods."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Iterator
from typing import Any

from afresh.errors import DefinitionError

from ._kernel import Method
from .bound import BoundComputeMethod
from .definition import TABLES, function_in_class, unwrapped, wrong_kind
from .method import compute_method_of

__all__ = ["ComputeService", "ServiceMember"]


class ServiceMember:
    """A descriptor of a service that stays in charge when a subclass overrides its body only."""

    __slots__ = ()

    def adopt(self, owner: type, name: str, override: Any) -> None:
        """Put a descriptor into `owner` for the body that it overrides this one with.

        Raises:
            DefinitionError: the body can't stand in for this one; says why.
        """
        raise NotImplementedError


class ComputeService(ABC):
    """Base of classes with compute methods.

    It lets a subclass override a compute method without repeating the decorator, and refuses
    overrides that would silently not be cached. A class without it may have compute methods too.

    Example:
        ```python
        class Counters(ComputeService):
            @compute_method
            async def get(self, key: str) -> int: ...
        ```
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, attribute in list(vars(cls).items()):
            if isinstance(attribute, Method):
                attribute.definition.check()
            elif isinstance(attribute, BoundComputeMethod):
                raise function_in_class(f"{cls.__qualname__}.{name}")
            elif isinstance(unwrapped(attribute), Method):
                raise wrong_kind(attribute, f"{cls.__qualname__}.{name}")
        for name in {name for base in cls.__mro__[1:] for name in _methods_of(base)}:
            attribute = _found_first(cls, name)
            if not isinstance(attribute, Method):
                _make_compute_method(cls, name, attribute)
        for name, member in _inherited_members(cls).items():
            attribute = _found_first(cls, name)
            if not isinstance(attribute, ServiceMember):
                member.adopt(cls, name, attribute)

    def __getstate__(self) -> Any:
        """The state to copy or pickle: results stay with the original."""
        state: Any = super().__getstate__()
        if isinstance(state, tuple):  # what the dictionary holds, and what slots hold
            return self._without_results(state[0] or {}), *state[1:]
        return self._without_results(state) if isinstance(state, dict) else state

    def _without_results(self, attributes: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value
            for name, value in attributes.items()
            if name != TABLES and not isinstance(getattr(type(self), name, None), Method)
        }


def _methods_of(cls: type) -> Iterator[str]:
    return (name for name, attribute in vars(cls).items() if isinstance(attribute, Method))


def _inherited_members(cls: type) -> dict[str, ServiceMember]:
    """The nearest of each name."""
    return {
        name: attribute
        for base in reversed(cls.__mro__[1:])
        for name, attribute in vars(base).items()
        if isinstance(attribute, ServiceMember)
    }


def _found_first(cls: type, name: str) -> Any:
    return next(vars(base)[name] for base in cls.__mro__ if name in vars(base))


def _make_compute_method(cls: type, name: str, override: Any) -> None:
    """Put a compute method into `cls` where a body without the decorator stands in for one."""
    overridden = next(base for base in cls.__mro__ if name in _methods_of(base))
    if not inspect.iscoroutinefunction(override) and not inspect.isasyncgenfunction(override):
        raise DefinitionError(
            f"{cls.__qualname__}.{name} overrides the compute method "
            f"{vars(overridden)[name].definition.qualified_name} but is not declared with "
            "'async def'."
        )
    method: Any = compute_method_of(override, {})
    setattr(cls, name, method)
    method.__set_name__(cls, name)
    method.definition.check()
