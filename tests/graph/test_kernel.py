"""What the kernel promises those who build on it: keepers, nodes, edges and observers by hand.

The C extension and its twin in Python are tested by the same tests, as all of the suite is; what
only one of them could get wrong stands here.
"""

import gc
import weakref
from typing import Any

import pytest

from afresh.graph import _kernel, _pure
from afresh.graph._context import CONSISTENT, INVALIDATED, PENDING
from afresh.graph.computed import Computed
from afresh.graph.options import ComputedOptions
from afresh.graph.producer import Producer


async def _body() -> int:
    return 1


@pytest.fixture
def keeper() -> Producer:
    return Producer(_body, ComputedOptions())


def finished(keeper: Producer, key: Any, value: Any = None, *uses: Computed[Any]) -> Computed[Any]:
    """A result that is there, computed from others."""
    node: Computed[Any] = Computed(keeper, key, (key,))
    for used in uses:
        node._use(used)
    node._finish(value, None, True)
    return node


def test_a_new_node_is_computing_and_known_as_such(keeper: Producer):
    node: Computed[Any] = Computed(keeper, "key", ("key",))
    assert node.is_computing
    assert keeper.computing == {"key": node}
    assert keeper.entries == {}
    node._finish(1, None, True)
    assert node.is_consistent
    assert keeper.computing == {}
    assert keeper.entries == {"key": node}


def test_a_node_that_is_not_to_be_kept_is_not(keeper: Producer):
    node: Computed[Any] = Computed(keeper, "key", ("key",))
    node._finish(1, None, False)
    assert node.is_consistent
    assert keeper.entries == keeper.computing == {}


def test_a_result_that_takes_the_place_of_another_makes_that_stale(keeper: Producer):
    first = finished(keeper, "key", 1)
    dependant = finished(keeper, "dependant", 1, first)
    second = finished(keeper, "key", 2)
    assert first.is_invalidated
    assert str(first.invalidation_cause) == "a newer result took its place"
    assert dependant.is_invalidated
    assert second.is_consistent
    assert keeper.entries["key"] is second


def test_thirty_two_results_for_one_key_leave_one_fresh(keeper: Producer):
    nodes: list[Computed[Any]] = [Computed(keeper, "key", ("key",)) for _ in range(32)]
    for node in nodes:
        node._finish(1, None, True)
    fresh = [node for node in nodes if node.is_consistent]
    assert fresh == [keeper.entries["key"]]
    assert keeper.computing == {}


def test_a_displaced_result_takes_no_successor_along(keeper: Producer):
    dependency = finished(keeper, "dependency", 1)
    first = finished(keeper, "key", 1, dependency)
    second = finished(keeper, "key", 2)
    _kernel.invalidate(dependency, "by hand")
    assert first.is_invalidated
    assert second.is_consistent
    assert keeper.entries["key"] is second


def test_an_old_result_that_is_freed_late_takes_no_successor_along(keeper: Producer):
    first = finished(keeper, "key", 1)
    circle = [first]
    circle.append(circle)  # type: ignore[arg-type]
    second = finished(keeper, "key", 2)
    gone = weakref.ref(first)
    del first, circle
    gc.collect()
    assert gone() is None
    assert keeper.entries["key"] is second


def test_a_result_that_was_never_kept_takes_nothing_out(keeper: Producer):
    kept = finished(keeper, "key", 1)
    other: Computed[Any] = Computed(keeper, "key", ("key",))
    other._finish(2, None, False)
    _kernel.invalidate(other)
    assert kept.is_consistent
    assert keeper.entries["key"] is kept


def test_a_computation_that_ends_late_does_not_end_the_one_that_took_its_place(keeper: Producer):
    first: Computed[Any] = Computed(keeper, "key", ("key",))
    second: Computed[Any] = Computed(keeper, "key", ("key",))
    assert keeper.computing["key"] is second
    first._finish(1, None, True)
    assert keeper.computing["key"] is second
    assert keeper.entries == {}
    assert first.is_invalidated
    second._finish(2, None, True)
    assert keeper.entries["key"] is second
    assert second.is_consistent


def test_a_computation_that_was_given_up_does_not_count_when_it_ends_after_all(keeper: Producer):
    node: Computed[Any] = Computed(keeper, "key", ("key",))
    keeper.computing.clear()
    kept = finished(keeper, "key", 2)
    node._finish(1, None, True)
    assert node.is_invalidated
    assert node.value == 1
    assert kept.is_consistent
    assert keeper.entries["key"] is kept


def test_an_invalidation_while_computing_waits_and_happens_once(keeper: Producer):
    calls: list[Any] = []
    node: Computed[Any] = Computed(keeper, "key", ("key",))
    node.on_invalidated(calls.append)
    _kernel.invalidate(node, "first")
    _kernel.invalidate(node, "second")
    assert node.is_computing
    assert node.flags & PENDING
    assert calls == []
    node._finish(1, None, True)
    assert node.is_invalidated
    assert calls == [node]
    assert str(node.invalidation_cause) == "first"
    assert keeper.entries == {}


def test_uses_after_the_end_are_ignored(keeper: Producer):
    node, late = finished(keeper, "key", 1), finished(keeper, "late", 1)
    node._use(late)
    assert node.dependencies == ()
    assert late.dependants == ()


def test_dependencies_are_strong_and_dependants_weak(keeper: Producer):
    dependency = finished(keeper, "dependency", 1)
    node = finished(keeper, "key", 1, dependency)
    gone = weakref.ref(node)
    keeper.entries.clear()
    assert node.dependencies == (dependency,)
    del node
    gc.collect()
    assert gone() is None
    assert dependency.dependants == ()

    node = finished(keeper, "key", 1, dependency)
    kept = weakref.ref(dependency)
    keeper.entries.clear()
    del dependency
    gc.collect()
    assert kept() is not None
    assert node.dependencies == (kept(),)


def test_what_is_computing_drops_what_it_used_when_it_is_dropped(keeper: Producer):
    dependency = finished(keeper, "dependency", 1)
    node: Computed[Any] = Computed(keeper, "key", ("key",))
    node._use(dependency)
    gone = weakref.ref(dependency)
    keeper.entries.clear()
    keeper.computing.clear()
    del dependency, node
    gc.collect()
    assert gone() is None


def test_the_arguments_are_found_from_the_key_or_kept(keeper: Producer):
    args = ("a", 1)
    assert Computed(keeper, args, args).args is args
    assert Computed(keeper, ("other", "key"), args).args is args
    one = Producer(_body, ComputedOptions(), None, 1)
    assert Computed(one, "a", ("a",)).args == ("a",)
    assert Computed(one, ("canonical", "a"), ("a",)).args == ("a",)


def test_versions_grow(keeper: Producer):
    versions = [finished(keeper, key).version for key in range(100)]
    assert versions == sorted(set(versions))
    assert versions[0] > 0


def test_uses_are_stamped_with_the_tick(keeper: Producer):
    node = finished(keeper, "key")
    before = _kernel.advance_tick()
    assert node.used <= before
    later = finished(keeper, "later")
    assert later.used > before
    assert _kernel.advance_tick() >= later.used


def test_the_states_are_numbers_that_both_twins_share(keeper: Producer):
    node = finished(keeper, "key")
    assert node.state == CONSISTENT
    _kernel.invalidate(node)
    assert node.state == INVALIDATED


def test_variables_that_the_kernel_does_not_have_are_refused():
    with pytest.raises(TypeError):
        _kernel.configure(no_such_variable=1)


def test_a_node_needs_a_keeper(keeper: Producer):
    with pytest.raises((TypeError, AttributeError)):
        Computed("no keeper", "key", ("key",))  # type: ignore[arg-type]


def test_the_twin_has_all_that_the_kernel_has():
    for name in _kernel.__all__:
        assert hasattr(_pure, name)
    if _kernel.COMPILED:
        for kind in ("Bound", "Keeper", "Node"):
            surface = {name for name in dir(getattr(_kernel, kind)) if not name.startswith("_")}
            twin = {name for name in dir(getattr(_pure, kind)) if not name.startswith("_")}
            own = {"stamp", "limit"}  # how the twin keeps its edges
            assert surface == twin - own, kind
            assert getattr(_pure, kind).__doc__


class Observer:
    """What the kernel tells: results that are there, and that went stale."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def computed(self, node: Any) -> None:
        self.events.append(("computed", node.key))

    def invalidated(self, node: Any) -> None:
        self.events.append(("invalidated", node.key))


@pytest.fixture
def observer():
    seen = Observer()
    _kernel.configure(observer=seen)
    yield seen
    _kernel.configure(observer=None)


def test_what_is_computed_is_told_once_and_what_goes_stale_too(
    keeper: Producer, observer: Observer
):
    nodes = [finished(keeper, key) for key in range(20)]
    assert observer.events == [("computed", key) for key in range(20)]
    observer.events.clear()
    for _ in range(2):
        for node in nodes:
            _kernel.invalidate(node)
    assert observer.events == [("invalidated", key) for key in range(20)]


def test_what_is_stale_from_the_start_is_told_as_both(keeper: Producer, observer: Observer):
    node: Computed[Any] = Computed(keeper, "key", ("key",))
    _kernel.invalidate(node)
    node._finish(1, None, True)
    assert observer.events == [("computed", "key"), ("invalidated", "key")]
