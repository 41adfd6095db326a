"""The results of one compute method for one service instance, by the arguments of the call."""

from __future__ import annotations

import types
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from . import _kernel, registry
from ._context import SCOPE, current
from .bound import BoundComputeMethod
from .definition import Definition
from .options import ComputedOptions
from .producer import Producer, produce

if TYPE_CHECKING:
    from .computed import Computed

__all__ = ["Table", "make_table"]


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
        if not definition.ignored:
            return args
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

    def invalidate_all(self, cause: Any) -> None:
        """Make all results stale."""
        for computed in [*self.entries.values(), *self.computing.values()]:
            self.invalidate_existing(computed, cause)

    def invalidate_existing(self, computed: Computed[Any], cause: Any) -> None:
        """Make `computed` stale because its method was called in an invalidation."""
        _kernel.invalidate(computed, cause)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."


def make_table(definition: Definition, instance: Any) -> Table:
    """Return a new table of the kind that the options ask for."""
    options = definition.options
    if options.consolidates:
        from .consolidation import ConsolidatingTable

        return ConsolidatingTable(definition, instance, options)
    return Table(definition, instance, options)
