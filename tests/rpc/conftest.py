"""Fixtures for RPC: a pair of hubs in each format, with no socket between them."""

from collections.abc import AsyncIterator, Iterator

import pytest

from afresh.primitives.clock import use_clock
from afresh.testing import FakeClock
from tests.rpc.pair import Pair


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """The clock of everything in afresh that waits, for as long as the test runs."""
    with use_clock(FakeClock()) as clock:
        yield clock


@pytest.fixture(params=["json5np", "json5", "msgpack6", "msgpack6c"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    pair = Pair(request.param)
    yield pair
    await pair.aclose()
