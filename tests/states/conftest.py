"""What the tests of states share: a clock that stands still, and a look for tasks left behind."""

from collections.abc import AsyncIterator, Iterator

import pytest

from afresh.primitives.clock import use_clock
from afresh.primitives.tasks import background_tasks
from afresh.testing import FakeClock


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


@pytest.fixture(autouse=True)
async def nothing_runs_on() -> AsyncIterator[None]:
    """Whatever a test does with states, no task of theirs outlives it."""
    yield
    assert background_tasks() == frozenset()
