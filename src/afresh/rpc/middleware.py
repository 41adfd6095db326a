"""What may be put around calls, on the way in and on the way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .contracts import MethodDefinition
    from .peer import Peer

__all__ = ["Middleware", "Proceed", "Request", "around"]


@dataclass(slots=True)
class Request:
    """A call as middleware sees it; arguments and headers may be changed before it proceeds.

    Args:
        peer: the other side.
        method: what is called.
        args: the values, one for each parameter.
        headers: go with the request: pairs of names and texts.
    """

    peer: Peer
    method: MethodDefinition
    args: Sequence[Any]
    headers: list[tuple[str, str]] = field(default_factory=list)


Proceed: TypeAlias = Callable[[], Awaitable[Any]]
"""Goes on with the call and returns its result."""

Middleware: TypeAlias = Callable[[Request, Proceed], Awaitable[Any]]
"""Put around calls: takes the request and what goes on with it, returns the result.

```python
async def timed(request: Request, proceed: Proceed) -> Any:
    started = time.perf_counter()
    try:
        return await proceed()
    finally:
        log.info("%s: %.3f s", request.method.wire_name, time.perf_counter() - started)
```
"""


def around(
    middleware: Sequence[Middleware], call: Callable[[Request], Awaitable[Any]]
) -> Callable[[Request], Awaitable[Any]]:
    """Return `call` with middleware around it, the first one outermost."""
    for layer in reversed(middleware):
        call = _layer(layer, call)
    return call


def _layer(
    layer: Middleware, inner: Callable[[Request], Awaitable[Any]]
) -> Callable[[Request], Awaitable[Any]]:
    return lambda request: layer(request, lambda: inner(request))
