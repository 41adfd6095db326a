"""Time that only tests move, and settings of the whole graph put back after each use."""

from collections.abc import Iterator

import pytest

from afresh.graph import Tracking, node_budget, set_node_budget, track_causes
from afresh.graph.registry import nodes
from afresh.primitives.clock import use_clock
from afresh.testing import FakeClock


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """The clock of everything in afresh that waits, for as long as the test runs."""
    with use_clock(FakeClock()) as clock:
        yield clock


@pytest.fixture
def budget() -> Iterator[None]:
    """Puts the node budget back."""
    before = node_budget()
    yield
    set_node_budget(before)


@pytest.fixture
def tracking() -> Iterator[None]:
    """Puts the way in which causes are tracked back."""
    before = track_causes(Tracking.ORIGIN)
    yield
    track_causes(before)


@pytest.fixture(autouse=True)
def nothing_left_computing() -> Iterator[None]:
    """A computation that ended in whatever way leaves no entry behind to wait for."""
    before = [node for node in nodes() if node.is_computing]
    yield
    left = [node for node in nodes() if node.is_computing and node not in before]
    assert left == []
