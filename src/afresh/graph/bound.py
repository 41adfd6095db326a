"""What a compute method is to its users: in its class, on an instance, and what a call returns.

Type checkers read the classes written for them; at run time the kernel's are the base.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from . import _kernel, causes
from ._context import current
from .definition import function_in_class
from .scopes import Isolated, RecordingInvalidations

if TYPE_CHECKING:
    from .computed import Computed
    from .definition import Definition
    from .options import ComputedOptions
    from .table import Table

__all__ = ["BoundComputeMethod", "ComputeCall", "ComputeMethod"]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

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
            key, args = self._key(*args, **kwargs)
            context = current.get()
            if isinstance(context, RecordingInvalidations):
                context.record(self.table, key, args)
                return False
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
