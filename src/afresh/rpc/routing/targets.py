"""Targets, which last, and their routes, which come and go."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from afresh.errors import InvalidStateError, RerouteError
from afresh.primitives.handlers import Handlers

__all__ = ["Route", "Target"]

_logger = logging.getLogger("afresh.rpc.routing")


class Route:
    """Where a target is, until it changes: one generation.

    Calls that follow a route listen to it and fail with `RerouteError` when it changes.

    Args:
        peer_url: what to connect to; `None` for this process.
        entry_gate: awaited by calls that run in this process, before they start, as their
            `ExecutionMode` says. For one that has just been given a shard and has to let the
            previous owner finish, for example. It raises nothing when all is well.
        is_static: this route never changes.
    """

    __slots__ = ("_handlers", "_is_changed", "entry_gate", "is_static", "peer_url")

    peer_url: str | None
    """What to connect to; `None` for this process."""
    entry_gate: Callable[[], Awaitable[object]] | None
    """Awaited by calls that run in this process, before they start."""
    is_static: bool
    """Whether this route never changes."""

    def __init__(
        self,
        peer_url: str | None,
        *,
        entry_gate: Callable[[], Awaitable[object]] | None = None,
        is_static: bool = False,
    ) -> None:
        self.peer_url = peer_url
        self.entry_gate = entry_gate
        self.is_static = is_static
        self._is_changed = False
        self._handlers: Handlers[Route] | None = None

    @property
    def is_local(self) -> bool:
        """Whether the target is in this process."""
        return self.peer_url is None

    @property
    def is_changed(self) -> bool:
        """Whether the target has to be asked for its next route."""
        return self._is_changed

    def check(self) -> None:
        """Make sure that the route has not changed.

        Raises:
            RerouteError: it has.
        """
        if self._is_changed:
            raise RerouteError(f"{self!r} has changed; ask the router where to go now.")

    def mark_changed(self) -> None:
        """Fail the calls that follow this route, so that they ask again where to go.

        Call it as soon as the target is no longer there. Doing so again does nothing.

        Raises:
            InvalidStateError: the route is static.
        """
        if self.is_static:
            raise InvalidStateError(
                f"{self!r} is static and can't change; make a Target with a function that "
                "resolves it."
            )
        if self._is_changed:
            return
        self._is_changed = True
        if self._handlers is not None:
            self._handlers.call(self)

    def on_changed(self, handler: Callable[[Route], object]) -> Callable[[], None]:
        """Call `handler` with this route when it changes, or now if it has changed already.

        Returns:
            A function that takes the handler back; calling it late or twice does nothing.
        """
        if self._is_changed:
            handler(self)
            return _do_nothing
        if self.is_static:
            return _do_nothing
        if self._handlers is None:
            self._handlers = Handlers(_logger)
        return self._handlers.add(handler)

    def __repr__(self) -> str:
        traits = ", static" if self.is_static else ", changed" if self._is_changed else ""
        return f"<Route to {self.peer_url or 'this process'}{traits}>"


class Target:
    """What a router answers: the identity of a shard, a host, or whatever calls are made to.

    Make one for each and keep it: a target lasts, wherever it moves. Its first route is made when
    somebody reads it, and the next ones when somebody reads it after a change, so that a burst of
    changes costs one.

    ```python
    primary = Target("primary", lambda: Route(cluster.primary_url))
    cluster.on_failover(lambda: primary.route.mark_changed())
    ```

    Args:
        name: for logs and errors.
        resolve: finds out where the target is now, and makes a new `Route` of it. When it can't,
            it raises `RerouteError`, and calls try again later.
    """

    __slots__ = ("__weakref__", "_resolve", "_route", "generation", "name")

    name: str
    """What the target is called in logs and errors."""
    generation: int
    """How many routes there have been."""

    def __init__(self, name: str, resolve: Callable[[], Route]) -> None:
        self.name = name
        self.generation = 0
        self._resolve = resolve
        self._route: Route | None = None

    @classmethod
    def at(cls, peer_url: str) -> Target:
        """A target that stays at one address for ever."""
        return _static(peer_url, peer_url)

    @classmethod
    def local(cls) -> Target:
        """The target that is this process, for ever."""
        return _static("this process", None)

    @property
    def route(self) -> Route:
        """The current route; a new one if there is none, or if the last one has changed.

        Raises:
            RerouteError: nobody can tell where the target is at present.
            InvalidStateError: what resolves this target came up with the route that has changed.
        """
        route = self._route
        if route is not None and not route.is_changed:
            return route
        next_route = self._resolve()
        if next_route is route:
            raise InvalidStateError(
                f"What resolves {self!r} returned the route that has changed; make a new Route "
                "each time."
            )
        self._route = next_route
        self.generation += 1
        return next_route

    def mark_changed(self) -> None:
        """Mark the current route as changed, if there is one that is not; the next is not made yet.

        Raises:
            InvalidStateError: the route is static.
        """
        if self._route is not None:
            self._route.mark_changed()

    def reset(self) -> Route:
        """Mark the current route as changed and make the next one at once.

        A static route is just returned.

        Raises:
            RerouteError: nobody can tell where the target is at present.
        """
        if self._route is not None and not self._route.is_static:
            self._route.mark_changed()
        return self.route

    def __repr__(self) -> str:
        return f"<Target {self.name!r}, generation {self.generation}: {self._route!r}>"


def _static(name: str, peer_url: str | None) -> Target:
    route = Route(peer_url, is_static=True)
    return Target(name, lambda: route)


def _do_nothing() -> None:
    """Stands for taking back a handler that is not there."""
