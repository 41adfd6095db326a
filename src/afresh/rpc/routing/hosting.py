"""What a host does with calls that come in, of services that are spread over several hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from afresh.errors import RerouteError

from .calls import Router
from .execution import ExecutionMode, local_execution
from .targets import Route

if TYPE_CHECKING:
    from ..contracts import MethodDefinition
    from ..middleware import Middleware, Proceed, Request

__all__ = ["check_route", "hosted"]

_here = Route(None, is_static=True)


def hosted(
    router: Router, mode: Callable[[MethodDefinition], ExecutionMode] | None = None
) -> Middleware:
    """Return middleware that runs the calls that belong here, and sends the others on.

    A caller may not have heard yet that what it asks for has moved, or this host may not. Calls
    for which the router has no target are none of this middleware's business.

    ```python
    hub = RpcHub(middleware=[hosted(router)])
    ```

    Args:
        router: the one that this host makes its own calls with.
        mode: how calls of a method take it when their route changes while they run; unless given,
            those of compute methods have a constrained entry and all others are constrained.
    """

    async def host(request: Request, proceed: Proceed) -> Any:
        method = request.method
        route = check_route(router, method, tuple(request.args))
        chosen = _default_mode(method) if mode is None else mode(method)
        async with local_execution(route, chosen):
            return await proceed()

    return host


def check_route(router: Router, method: MethodDefinition, arguments: tuple[Any, ...]) -> Route:
    """Make sure that a call that came in belongs here, or has no target at all.

    Returns:
        The route of the call, for `local_execution`. It is local.

    Raises:
        RerouteError: the call belongs elsewhere; the caller asks its own router again.
    """
    target = router(method, arguments)
    route = _here if target is None else target.route
    if not route.is_local:
        raise RerouteError(f"{method.wire_name} with these arguments is not served here.")
    return route


def _default_mode(method: MethodDefinition) -> ExecutionMode:
    return ExecutionMode.default(is_compute=method.kind.id == 1, is_distributed=True)
