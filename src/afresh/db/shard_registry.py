"""Which shards there are, at any moment.

Which of them a request is about is left to whoever handles it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from afresh.errors import InvalidStateError
from afresh.states import MutableState

from .engines import EngineOptions, dialect_of
from .shards import Shard, open_shard

__all__ = ["ShardRegistry"]


class ShardRegistry:
    """Which shards there are, and their engines, which are made when a shard is first used.

    The three states take part in the graph: what is computed from them goes stale when shards come
    and go. Each host keeps a registry of its own.

    Args:
        database_name: what the database is called in what hosts tell each other.
        options: how engines are made out of URLs.

    Example:
        ```python
        shards = ShardRegistry(database_name="shop")
        shards.add("berlin", "postgresql+asyncpg://db-1/berlin")
        shard = shards.use("berlin")
        ```
    """

    names: MutableState[frozenset[str]]
    """The shards that there are."""

    used_names: MutableState[frozenset[str]]
    """Those of them that were used: only their logs of operations need to be followed."""

    event_names: MutableState[frozenset[str]]
    """Those of them whose events this host handles: all, unless a filter says otherwise."""

    def __init__(
        self, *, database_name: str = "default", options: EngineOptions | None = None
    ) -> None:
        self.names = MutableState(frozenset[str]())
        self.used_names = MutableState(frozenset[str]())
        self.event_names = MutableState(frozenset[str]())
        self._database_name = database_name
        self._options = options
        self._event_filter: Callable[[str], bool] = _accept
        self._databases: dict[str, str | URL | AsyncEngine] = {}
        self._used: dict[str, Shard] = {}
        self._removed: set[Shard] = set()
        self._is_closed = False

    def add(self, name: str, database: str | URL | AsyncEngine) -> None:
        """Make a shard known; nothing is connected before it is used.

        Args:
            name: what it is called; "" is for the only one.
            database: a URL, or an engine that the caller made and goes on owning.

        Raises:
            ValueError: there is one of that name, or afresh does not know such a database.
            InvalidStateError: the registry was closed.
        """
        self._check_open()
        if name in self._databases:
            raise ValueError(
                f"There is a shard {name!r} already; remove it before you add another."
            )
        if not isinstance(database, AsyncEngine):
            database = make_url(database)
            dialect_of(database)
        self._databases[name] = database
        self._publish()

    async def remove(self, name: str) -> bool:
        """Forget a shard and close its connections, those in use when they come back.

        From the call on the shard can't be used, and a new one of the same name can be added.

        Returns:
            Whether there was such a shard.
        """
        if self._databases.pop(name, None) is None:
            return False
        shard = self._used.pop(name, None)
        self._publish()
        if shard is not None:
            self._removed.add(shard)
            try:
                await shard.aclose()
            finally:
                self._removed.discard(shard)
        return True

    def use(self, name: str = "") -> Shard:
        """Return a shard, with its engines made.

        A compute method that asks for a shard that is not there is computed anew when shards come
        or go.

        Raises:
            LookupError: there is none of that name; nothing is kept of the name.
            InvalidStateError: the registry was closed.
        """
        shard = self._used.get(name)
        return self._open(name) if shard is None else shard

    def can_use(self, name: str) -> bool:
        """Whether there is a shard of that name."""
        return name in self._databases

    def set_event_filter(self, accepts: Callable[[str], bool]) -> None:
        """Choose by their names the shards whose events this host handles.

        Args:
            accepts: called with each name, whenever shards come or go.
        """
        self._event_filter = accepts
        self._publish()

    async def aclose(self) -> None:
        """Close all shards, those that are being removed as well. Closing again does nothing.

        Raises:
            BaseExceptionGroup: shards could not be closed properly; all others are.
        """
        self._is_closed = True
        shards = [*self._used.values(), *self._removed]
        self._databases.clear()
        self._used.clear()
        self._publish()
        results = await asyncio.gather(
            *(shard.aclose() for shard in shards), return_exceptions=True
        )
        errors = [result for result in results if result is not None]
        if errors:
            raise BaseExceptionGroup("Some shards could not be closed properly.", errors)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._databases))

    def __len__(self) -> int:
        return len(self._databases)

    def __repr__(self) -> str:
        return f"<ShardRegistry of {len(self)} shards, {len(self._used)} in use>"

    def _open(self, name: str) -> Shard:
        self._check_open()
        database = self._databases.get(name)
        if database is None:
            _ = self.names.use()
            raise LookupError(f"There is no shard {name!r}; add it before you use it.")
        shard = self._used[name] = open_shard(
            name, database, database_name=self._database_name, options=self._options
        )
        self._publish()
        return shard

    def _check_open(self) -> None:
        if self._is_closed:
            raise InvalidStateError("The shards were closed; open the database anew to use them.")

    def _publish(self) -> None:
        names = frozenset(self._databases)
        self.names.set(names)
        self.used_names.set(frozenset(self._used))
        self.event_names.set(frozenset(filter(self._event_filter, names)))


def _accept(name: str) -> bool:
    return True
