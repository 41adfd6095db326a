"""Which node owns which shard, so that every host comes to the same answer without asking another.

Keys are spread over a fixed number of shards, shards over the nodes that are there. Who the nodes
are, and telling calls of a change, is left to `routing`. The maps are those of .NET peers: same
names, same map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeAlias, TypeVar

from .hash_ring import stable_name
from .stable_hash import stable_hash

__all__ = ["ShardMap", "ShardMapBuilder", "greedy", "maglev", "rendezvous"]

T = TypeVar("T")

ShardMapBuilder: TypeAlias = Callable[[int, Sequence[str]], list[int]]
"""Makes a map: (number of shards, names of nodes, at least one of each) → index of each one's node.

Nothing but the arguments may have a say in it.
"""


def maglev(shard_count: int, names: Sequence[str]) -> list[int]:
    """Nodes take turns, each taking the free shard that comes first in an order of its own.

    Shares differ by one shard at most, and few shards move when nodes come and go. After
    Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016.
    """
    if shard_count == 1:
        return [0]
    positions = []
    strides = []
    for name in names:
        positions.append(_node_hash(name, 0) % shard_count)
        stride = _node_hash(name, 1) % (shard_count - 1) + 1
        # Only strides without a common factor with the number of shards come past every shard.
        while math.gcd(stride, shard_count) != 1:
            stride = stride % (shard_count - 1) + 1
        strides.append(stride)
    owners = [-1] * shard_count
    free = shard_count
    while True:
        for node, stride in enumerate(strides):
            position = positions[node]
            while owners[position] >= 0:
                position = (position + stride) % shard_count
            owners[position] = node
            positions[node] = position
            free -= 1
            if not free:
                return owners


def rendezvous(shard_count: int, names: Sequence[str], *, max_imbalance: float = 1) -> list[int]:
    """Each shard goes to the node with the highest hash for it; then shares are evened out.

    Without evening out (`max_imbalance=math.inf`), only shards of a node that left move, and only
    to one that joined. Takes a hash for each pair of shard and node.

    Args:
        shard_count: how many shards.
        names: what the nodes are called.
        max_imbalance: by how many shards the largest and the smallest share may differ; bind it
            with `functools.partial` where a builder is asked for.

    Raises:
        ValueError: `max_imbalance` is less than 1.
    """
    if not max_imbalance >= 1:
        raise ValueError(f"rendezvous: max_imbalance is {max_imbalance}; pass 1 or more.")
    weights = [[_node_hash(name, shard) for shard in range(shard_count)] for name in names]
    nodes = range(len(names))
    owners = [max(nodes, key=lambda node: weights[node][shard]) for shard in range(shard_count)]
    shares = [0] * len(names)
    for owner in owners:
        shares[owner] += 1
    while True:
        largest = max(nodes, key=shares.__getitem__)
        smallest = min(nodes, key=shares.__getitem__)
        if shares[largest] - shares[smallest] <= max_imbalance:
            return owners
        claims = weights[smallest]
        shard = max(
            (shard for shard in range(shard_count) if owners[shard] == largest),
            key=claims.__getitem__,
        )
        owners[shard] = smallest
        shares[largest] -= 1
        shares[smallest] += 1


def greedy(shard_count: int, names: Sequence[str]) -> list[int]:
    """One node after the other takes its whole share, at places that its hashes choose.

    Shares differ by one shard at most, but more shards move than with the other builders when
    nodes come and go.
    """
    owners = [-1] * shard_count
    free = shard_count
    for node, name in enumerate(names):
        share = -(-free // (len(names) - node))
        free -= share
        for index in range(share):
            # The only place where .NET peers take the hash for a signed number.
            position = stable_hash(f"{name}-{index:08x}") % shard_count
            while owners[position] >= 0:
                position = (position + 1) % shard_count
            owners[position] = node
    return owners


class ShardMap(Generic[T]):
    """The nodes of a fixed number of shards; immutable. `map[shard]` is the node of a shard.

    ```python
    shards = ShardMap(12, ["server-1", "server-2", "server-3"])
    shards[shards.shard_of("order 5")]
    ```

    Two maps of the same number of shards and the same nodes are the same, wherever they are made
    and in whichever order the nodes are given. `str(map)` draws the map.

    Args:
        shard_count: how many shards, 1 or more. Choose it once and for all. A prime number, about
            100 for each node, makes a node that joins move little more than its share; with ten
            for each node it moves about twice as much.
        nodes: none is fine; then no shard has an owner.
        builder: `maglev`, `rendezvous`, `greedy`, or a function of your own.
        name: what a node is called; names decide who owns what. `str` by default.

    Raises:
        ValueError: `shard_count` is less than 1, or two nodes have the same name.
        TypeError: `name` is not given and the text of a node doesn't last.
    """

    __slots__ = ("_names", "_nodes", "_owners", "_shard_count")

    def __init__(
        self,
        shard_count: int,
        nodes: Iterable[T] = (),
        *,
        builder: ShardMapBuilder = maglev,
        name: Callable[[T], str] = stable_name,
    ) -> None:
        if shard_count < 1:
            raise ValueError(f"ShardMap: shard_count is {shard_count}; pass 1 or more.")
        # Some builders give each order of nodes its own map, and hosts learn of nodes in any order.
        named = sorted(((name(node), node) for node in nodes), key=lambda pair: pair[0])
        self._names: tuple[str, ...] = tuple(node_name for node_name, _ in named)
        for node_name, next_name in zip(self._names, self._names[1:], strict=False):
            if node_name == next_name:
                raise ValueError(f"ShardMap: two nodes are called {node_name!r}; remove one.")
        self._nodes: tuple[T, ...] = tuple(node for _, node in named)
        self._shard_count = shard_count
        self._owners: list[int] = builder(shard_count, self._names) if named else []

    @property
    def shard_count(self) -> int:
        """How many shards there are."""
        return self._shard_count

    @property
    def nodes(self) -> Sequence[T]:
        """The nodes, in the order of their names."""
        return self._nodes

    def shard_of(self, key: str | bytes) -> int:
        """The shard of a key; the same as long as the number of shards is.

        Raises:
            TypeError: `key` is neither text nor bytes.
        """
        return stable_hash(key) % self._shard_count

    def __getitem__(self, shard: int) -> T | None:
        """The node that owns a shard; `None` when there are no nodes.

        Raises:
            IndexError: there is no such shard.
        """
        return self.replica(shard, 0)

    def replica(self, shard: int, offset: int) -> T | None:
        """The node `offset` places after the one that owns a shard, around all nodes.

        For those who keep copies: offset 0 is the owner itself, and as many offsets as there are
        nodes give different ones.

        Raises:
            IndexError: there is no such shard.
        """
        if not 0 <= shard < self._shard_count:
            raise IndexError(f"There is no shard {shard}: there are {self._shard_count}, from 0.")
        if not self._nodes:
            return None
        return self._nodes[(self._owners[shard] + offset) % len(self._nodes)]

    def __str__(self) -> str:
        lines = [f"{self._shard_count} shards on {len(self._nodes)} nodes"]
        for index, node_name in enumerate(self._names):
            marks = "".join("+" if owner == index else "-" for owner in self._owners)
            lines.append(f"  {marks} {node_name}")
        return "\n".join(lines)


def _node_hash(name: str, index: int) -> int:
    return stable_hash(f"{name}-{index:08x}") & 0xFFFF_FFFF
