"""Targets of shards: keys → shards → the nodes that are there at present."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeAlias, TypeVar

from afresh.errors import RerouteError
from afresh.primitives.clock import current_clock

from ..hash_ring import stable_name
from ..shard_map import ShardMap, ShardMapBuilder, maglev
from .targets import Route, Target

__all__ = ["ShardTargets"]

T = TypeVar("T")

_Place: TypeAlias = tuple[str, str | None]
"""What a node is called, and where it is."""


class ShardTargets(Generic[T]):
    """One target for each shard; those whose owner, or its address, changes are rerouted.

    ```python
    shards = ShardTargets(12, peer_url=lambda host: None if host == me else f"ws://{host}/rpc/ws")
    hub = RpcHub(router=lambda method, arguments: shards.target_of(arguments[0]))
    shards.set_nodes(["host-1:8000", "host-2:8000"])      # at the start, and whenever they change
    ```

    While there are no nodes, calls wait for some.

    Args:
        shard_count: how many shards, see `ShardMap`.
        nodes: who is there at first.
        peer_url: where a node is, `None` for this process; asked whenever the nodes are set.
        builder: makes the map, see `shard_map`.
        name: what a node is called; names decide who owns what. `str` by default.
        settling: for how many seconds a node to which a shard has come lets calls that run there
            wait at the entry gate, so that the node before it hears of the change and stops.

    Raises:
        ValueError: a number is too small, or two nodes have the same name.
        TypeError: `name` is not given and the text of a node doesn't last.
    """

    __slots__ = ("_builder", "_map", "_name", "_peer_url", "_places", "_settling", "_targets")

    def __init__(
        self,
        shard_count: int,
        nodes: Iterable[T] = (),
        *,
        peer_url: Callable[[T], str | None],
        builder: ShardMapBuilder = maglev,
        name: Callable[[T], str] = stable_name,
        settling: float = 0.0,
    ) -> None:
        if not settling >= 0:
            raise ValueError(f"ShardTargets: settling is {settling}; pass 0 seconds or more.")
        self._peer_url = peer_url
        self._builder = builder
        self._name = name
        self._settling = settling
        self._map = ShardMap(shard_count, nodes, builder=builder, name=name)
        self._places = self._places_in(self._map)
        self._targets: tuple[Target, ...] = tuple(
            Target(f"shard {shard}", self._resolver(shard)) for shard in range(shard_count)
        )

    @property
    def map(self) -> ShardMap[T]:
        """Who owns what at present."""
        return self._map

    def target(self, shard: int) -> Target:
        """The target of a shard; always the same object.

        Raises:
            IndexError: there is no such shard.
        """
        if not 0 <= shard < len(self._targets):
            raise IndexError(f"There is no shard {shard}: there are {len(self._targets)}, from 0.")
        return self._targets[shard]

    def target_of(self, key: str | bytes) -> Target:
        """The target of the shard that a key belongs to.

        Raises:
            TypeError: `key` is neither text nor bytes.
        """
        return self._targets[self._map.shard_of(key)]

    def set_nodes(self, nodes: Iterable[T]) -> list[int]:
        """Say who is there now, and reroute the calls of the shards that thereby move.

        Returns:
            The shards that moved, in ascending order.

        Raises:
            ValueError: two nodes have the same name; then nothing changes.
        """
        shard_count = self._map.shard_count
        after = ShardMap(shard_count, nodes, builder=self._builder, name=self._name)
        places = self._places_in(after)
        moved = [shard for shard in range(shard_count) if places[shard] != self._places[shard]]
        self._map = after
        self._places = places
        for shard in moved:
            self._targets[shard].mark_changed()
        return moved

    def _places_in(self, shards: ShardMap[T]) -> list[_Place | None]:
        place_of = {
            name: (name, self._peer_url(node))
            for name, node in ((self._name(node), node) for node in shards.nodes)
        }
        owners = (shards[shard] for shard in range(shards.shard_count))
        return [None if owner is None else place_of[self._name(owner)] for owner in owners]

    def _resolver(self, shard: int) -> Callable[[], Route]:
        def resolve() -> Route:
            place = self._places[shard]
            if place is None:
                raise RerouteError(f"There is no node for shard {shard} yet; try again later.")
            _, peer_url = place
            return Route(peer_url, entry_gate=_settling(self._settling) if self._settling else None)

        return resolve


def _settling(seconds: float) -> Callable[[], Awaitable[None]]:
    clock = current_clock()
    opens_at = clock.now() + seconds

    async def gate() -> None:
        remaining = opens_at - clock.now()
        if remaining > 0:
            await clock.sleep(remaining)

    return gate
