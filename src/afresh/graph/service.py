"""`ComputeService`: the base of classes with compute methods."""

from __future__ import annotations

import inspect
from abc import ABC
from typing import Any

from afresh.errors import DefinitionError

from ._kernel import Method
from .method import _TABLES, compute_method_of

__all__ = ["ComputeService"]


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
                continue
            base = _overridden(cls, name)
            if base is None:
                continue
            if not inspect.iscoroutinefunction(attribute):
                raise DefinitionError(
                    f"{cls.__qualname__}.{name} overrides the compute method "
                    f"{base.definition.qualified_name} but is not declared with 'async def'."
                )
            method = compute_method_of(attribute, {})
            setattr(cls, name, method)
            method.definition.named(cls, name)

    def __getstate__(self) -> Any:
        """The state to copy or pickle: results stay with the original."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if name != _TABLES and not isinstance(getattr(type(self), name, None), Method)
        }


def _overridden(cls: type, name: str) -> Any:
    for base in cls.__mro__[1:]:
        attribute = vars(base).get(name)
        if attribute is not None:
            return attribute if isinstance(attribute, Method) else None
    return None
