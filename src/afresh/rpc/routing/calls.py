"""What a call does with a router: ask it, follow the route, and ask again when told to."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from afresh.errors import RerouteError
from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays

from .targets import Route, Target

if TYPE_CHECKING:
    from ..contracts import MethodDefinition

__all__ = ["REROUTE_DELAYS", "Router", "reroute"]

T = TypeVar("T")

_logger = logging.getLogger("afresh.rpc.routing")

REROUTE_DELAYS: RetryDelays = RetryDelays.exponential(0.1, 5)
"""How long a call waits before it asks the router again."""

Router: TypeAlias = "Callable[[MethodDefinition, tuple[Any, ...]], Target | None]"
"""Says where a call goes: (method, its arguments) → target, `None` for the default peer.

It raises `RerouteError` when it can't tell at present, and any other error to fail the call.
"""


async def reroute(
    router: Router,
    method: MethodDefinition,
    arguments: tuple[Any, ...],
    call: Callable[[Route | None], Awaitable[T]],
    *,
    delays: RetryDelays = REROUTE_DELAYS,
) -> T:
    """Make a call, and make it anew elsewhere for as long as it is told to go elsewhere.

    There is no limit to that; time-outs and cancellations come from outside.

    Args:
        router: asked before each attempt.
        method: what is called.
        arguments: with what.
        call: makes one attempt along a route, `None` for the default peer. It raises
            `RerouteError` when the route changes under it, or when the other side says so.
        delays: seconds before the first new attempt, the second, and so on.

    Returns:
        What `call` returns.

    Raises:
        Exception: what `router` or `call` raises, `RerouteError` aside.
    """
    attempts = 0
    while True:
        try:
            target = router(method, arguments)
            return await call(None if target is None else target.route)
        except RerouteError as error:
            attempts += 1
            delay = delays[attempts]
            _logger.warning(
                "A call of %s is rerouted (%d times so far), in %.1f s: %s",
                method.wire_name,
                attempts,
                delay,
                str(error),  # not the error, with what it holds of the failed attempt
            )
        await current_clock().sleep(delay)
