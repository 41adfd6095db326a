"""What holds for the graph at every moment, whatever happened before.

Everything here looks only at what a tool could see: the nodes of a service, their states, their
edges in both directions, their values. None of it asks the kernel what it thinks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from afresh import Computed
from afresh.graph import nodes
from afresh.graph._context import DELAY_RUNS
from afresh.primitives.clock import current_clock

from .world import LIFETIME, Glitch, Outcome, World, hour

Node = Computed[Any]


def nodes_of(world: World) -> list[Node]:
    """All results of the world's service that the registry knows."""
    return [node for node in nodes() if node.keeper.instance is world.service]


def check(world: World, held: Iterable[Node], *, is_settled: bool) -> int:
    """Check everything; returns how many values were compared with what they should be.

    Args:
        world: whose graph to check.
        held: results that may be stale, and yet must fit into the graph.
        is_settled: whether the event loop has nothing left to do.
    """
    known = nodes_of(world)
    check_places(known)
    everywhere = list(_closure([*known, *held]))
    check_edges(everywhere)
    check_lifetimes(world, known)
    check_progress(known, is_settled=is_settled)
    return check_values(world, known)


def check_places(known: list[Node]) -> None:
    """What is kept is consistent, what is computed is computing, each under its own key."""
    for node in known:
        keeper = node.keeper
        if keeper.entries.get(node.key) is node:
            assert node.is_consistent, f"{node} is kept"
        else:
            assert keeper.computing.get(node.key) is node
            assert node.is_computing, f"{node} is among those that are being computed"
    versions = [node.version for node in known]
    assert len(set(versions)) == len(versions), "versions are unique"


def check_edges(everywhere: list[Node]) -> None:
    """Each edge is seen from both its ends, and none leads to or from what is stale."""
    for node in everywhere:
        if node.is_computing:
            assert not node.dependants, f"{node} has dependants"
            continue
        if node.is_invalidated:
            assert not node.dependencies, f"{node} has dependencies"
            assert not node.dependants, f"{node} has dependants"
            continue
        for dependency in node.dependencies:
            if dependency.is_consistent:
                assert node in dependency.dependants, f"{dependency} does not know {node}"
            else:
                assert node.flags & DELAY_RUNS, f"{node} uses {dependency}"
        for dependant in node.dependants:
            assert dependant.is_consistent, f"{node} has the dependant {dependant}"
            assert node in dependant.dependencies, f"{dependant} does not know {node}"


def check_lifetimes(world: World, known: list[Node]) -> None:
    """Nothing is served for longer than it may be."""
    now = current_clock().now()
    for node in known:
        if not node.is_consistent or node.version not in world.finished_at:
            continue
        age = now - world.finished_at[node.version]
        if node.options.auto_invalidate == LIFETIME:
            assert age < LIFETIME, f"{node} is {age} s old"
        if isinstance(node.error, Glitch):
            assert age < node.options.transient_error_delay, f"{node} is {age} s old"


def check_progress(known: list[Node], *, is_settled: bool) -> None:
    """What is out of date for a while is waiting for something that will come."""
    for node in known:
        if not node.is_consistent:
            continue
        if node.flags & DELAY_RUNS:
            assert node.extra is not None
            assert node.extra.timer is not None
            assert node.extra.timer.is_active, f"{node} waits for nothing"
        consolidation = node.consolidation
        if consolidation is not None and not consolidation.source.is_consistent:
            task = consolidation.task
            assert task is not None, f"{node} is compared with nothing"
            if task.done():
                assert not is_settled, f"{node} was compared, and nothing followed"
            else:
                assert not task.get_loop().is_closed(), f"{node} waits for ever"


def check_values(world: World, known: list[Node]) -> int:
    """Each consistent result is what computing it now would give."""
    compared = 0
    late: dict[int, bool] = {}
    for node in known:
        if node.is_consistent and not is_late(node, late):
            found, due = outcome_of(node), expected(world, node)
            assert found == due, f"{node} holds {found}, and should hold {due}"
            compared += 1
    return compared


def outcome_of(node: Node) -> Outcome:
    """What a result holds."""
    if node.error is not None:
        return "error", (type(node.error), str(node.error))
    return "value", node.value


def expected(world: World, node: Node) -> Outcome:
    """What a result should hold."""
    name = node.keeper.definition.name  # type: ignore[attr-defined]
    match name:
        case "cell":
            return "value", world.cells[node.args[0]]
        case "hour":
            return "value", hour()
    return world.expected(node.args[0])


def is_late(node: Node, known: dict[int, bool]) -> bool:
    """Whether a consistent result may be out of date: an invalidation of it, or of something that
    it was computed from, is still on its way.
    """
    if node.version not in known:
        consolidation = node.consolidation
        if node.flags & DELAY_RUNS or node.is_invalidated:
            known[node.version] = True
        elif consolidation is not None:
            known[node.version] = is_late(consolidation.source, known)
        else:
            known[node.version] = any(is_late(each, known) for each in node.dependencies)
    return known[node.version]


def stale_after(world: World, started: list[Node]) -> tuple[set[Node], set[Node]]:
    """The results that go stale, and those that will after a delay, when `started` do.

    Told by the edges from results to what they were computed from; the kernel goes by the others.
    """
    users: dict[Node, list[Node]] = {}
    for node in _closure([*nodes_of(world), *started]):
        if node.is_consistent:
            for dependency in node.dependencies:
                users.setdefault(dependency, []).append(node)
    stale: set[Node] = set()
    delayed: set[Node] = set()
    pending = list(started)
    while pending:
        node = pending.pop()
        if node.options.invalidation_delay > 0:
            delayed.add(node)
        elif node not in stale:
            stale.add(node)
            pending += users.get(node, [])
    return stale, delayed


def _closure(roots: Iterable[Node]) -> Iterator[Node]:
    """The nodes, those that they were computed from, and so on, and all that use any of them."""
    pending = list(roots)
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if node.version in seen:
            continue
        seen.add(node.version)
        yield node
        pending += node.dependencies
        pending += node.dependants
        if node.consolidation is not None:
            pending.append(node.consolidation.source)
