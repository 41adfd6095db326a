"""The decorators: `compute_method` for methods, `compute_function` for functions elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from . import registry
from .bound import BoundComputeMethod, ComputeMethod
from .definition import Definition
from .table import make_table

__all__ = ["compute_function", "compute_method"]

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


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
        table = make_table(definition, None)
        registry.enlist_function(table)
        return table.bound

    return decorate if function is None else decorate(function)
