"""A cascade: one invalidation that reaches every node computed from it, directly or down a chain.

Building the graph is not timed, the one call of ``invalidate`` is. Two ways: *dropped*, where only
the cache keeps the nodes, so that the same call also takes them out of memory (the way of most
programs), and *held*, where somebody holds every node. observ, which is synchronous, keeps its
nodes and marks them dirty, so its figure is to be read beside *held*.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks import peers
from benchmarks.sampling import Sampler, Timed
from benchmarks.services import Graph

SIZES = (1_000, 10_000, 100_000)
"""Nodes that the cascade reaches."""

SHAPES = ("fan", "chain")


def _dropped(shape: str) -> Timed:
    async def run(count: int) -> float:
        graph = Graph()
        if shape == "fan":
            for index in range(count):
                await graph.leaf(index)
            start = perf_counter()
            graph.hub.invalidate()
        else:
            for index in range(count + 1):
                await graph.link(index)
            start = perf_counter()
            graph.link.invalidate(0)
        return perf_counter() - start

    return run


def _held(shape: str) -> Timed:
    async def run(count: int) -> float:
        graph = Graph()
        if shape == "fan":
            nodes = [await graph.leaf.capture(index) for index in range(count)]
            start = perf_counter()
            graph.hub.invalidate()
        else:
            nodes = [await graph.link.capture(index) for index in range(count + 1)]
            start = perf_counter()
            graph.link.invalidate(0)
        elapsed = perf_counter() - start
        assert not any(node.is_consistent for node in nodes), "the cascade missed a node"
        return elapsed

    return run


def _observ(shape: str) -> Timed:
    from observ import computed, reactive

    def build(count: int) -> tuple[Any, list[Callable[[], int]]]:
        state = reactive({"value": 0})
        nodes: list[Callable[[], int]] = []
        for index in range(count):
            if shape == "fan" or not index:
                nodes.append(computed(lambda: state["value"]))
            else:
                nodes.append(computed(lambda below=nodes[-1]: below()))
        return state, nodes

    async def run(count: int) -> float:
        state, nodes = build(count)
        for node in nodes:
            node()
        start = perf_counter()
        state["value"] = 1
        elapsed = perf_counter() - start
        assert nodes[0]() == 1, "observ missed the change"
        return elapsed

    return run


async def prepare(quick: bool) -> dict[str, Sampler]:
    """Samplers for each shape and size; a quick run takes one loop a sample."""
    samplers = {}
    for shape in SHAPES:
        for size in SIZES:
            # Large graphs take most of a second to build; one loop of them lasts long
            # enough to average over interrupts.
            large = size == max(SIZES)
            repeats = 1 if large or quick else 3
            every = 3 if large and not quick else 1
            samplers[f"{shape} {size}, dropped"] = Sampler(_dropped(shape), size, repeats, every)
            samplers[f"{shape} {size}, held"] = Sampler(_held(shape), size, repeats, every)
            if "observ" in peers.installed():
                samplers[f"{shape} {size}, observ"] = Sampler(_observ(shape), size, repeats, every)
    return samplers
