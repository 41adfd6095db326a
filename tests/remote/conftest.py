"""Fixtures for compute methods across the wire: two hubs with no socket between them."""

from collections.abc import AsyncIterator, Iterator

import pytest

from afresh.primitives.clock import use_clock
from afresh.remote import ComputeCalls
from afresh.testing import FakeClock
from tests.rpc.pair import Pair


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """The clock of everything in afresh that waits, for as long as the test runs."""
    with use_clock(FakeClock()) as clock:
        yield clock


@pytest.fixture(params=["json5np", "msgpack6c"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    pair = Pair(request.param, kinds=(ComputeCalls(),))
    yield pair
    await pair.aclose()
