"""A hash ring: nodes in the order of their hashes, each key belonging to the node that follows it.

When a node joins or leaves, only keys beside it change their owner. Each node has one place on the
ring, so shares are uneven; for even shares of a fixed number of shards see `shard_map`.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from .stable_hash import stable_hash

__all__ = ["HashRing", "stable_name"]

T = TypeVar("T")


def stable_name(node: object) -> str:
    """`str(node)`, for nodes whose text is the same in all processes.

    Raises:
        TypeError: the text of such an object holds its address in memory.
    """
    kind = type(node)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise TypeError(
            f"Nodes of type {kind.__qualname__} have no text that lasts; give the class a __str__, "
            "or pass a function that names them."
        )
    return str(node)


class HashRing(Generic[T]):
    """Nodes on a ring; immutable.

    ```python
    ring = HashRing(["server-1", "server-2", "server-3"])
    ring.find(stable_hash("order 5"))                # the server of this key
    ring.several(stable_hash("order 5"), 2)          # that one and the next: a place for a copy
    ```

    Args:
        nodes: in any order; the ring is the same.
        name: what a node is called; names place nodes on the ring. `str` by default.

    Raises:
        ValueError: two nodes have the same name.
        TypeError: `name` is not given and the text of a node doesn't last.
    """

    __slots__ = ("_hashes", "_nodes")

    def __init__(self, nodes: Iterable[T] = (), *, name: Callable[[T], str] = stable_name) -> None:
        named: dict[str, T] = {}
        for node in nodes:
            node_name = name(node)
            if node_name in named:
                raise ValueError(f"HashRing: two nodes are called {node_name!r}; remove one.")
            named[node_name] = node
        placed = sorted((stable_hash(node_name), node_name) for node_name in named)
        self._hashes: list[int] = [place for place, _ in placed]
        self._nodes: tuple[T, ...] = tuple(named[node_name] for _, node_name in placed)

    @property
    def nodes(self) -> Sequence[T]:
        """The nodes in their order on the ring."""
        return self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def find(self, key_hash: int, offset: int = 0) -> T:
        """The node that a key belongs to.

        Args:
            key_hash: what `stable_hash` gives for the key.
            offset: 1 for the node after that one, -1 for the node before it, and so on, around
                the ring.

        Raises:
            LookupError: the ring is empty.
        """
        if not self._nodes:
            raise LookupError("The hash ring is empty; make it of at least one node.")
        return self._nodes[(self._index(key_hash) + offset) % len(self._nodes)]

    def several(self, key_hash: int, count: int, offset: int = 0) -> tuple[T, ...]:
        """The node of a key and those after it; all different.

        Args:
            key_hash: what `stable_hash` gives for the key.
            count: how many; fewer come if the ring has fewer.
            offset: how many to skip first.
        """
        total = len(self._nodes)
        count = min(count, total)
        if count <= 0:
            return ()
        start = (self._index(key_hash) + offset) % total
        return (self._nodes + self._nodes)[start : start + count]

    def _index(self, key_hash: int) -> int:
        return bisect.bisect_left(self._hashes, key_hash)
