"""What the tests of streams share: two tables, and a look for what they leave behind."""

from collections.abc import AsyncIterator

import pytest

from afresh.primitives.tasks import background_tasks

from .ends import Ends, turns


@pytest.fixture(params=["json5np", "msgpack6c"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    """Two tables in each kind of format; in the end nothing of either is left."""
    ends = Ends(request.param)
    yield ends
    ends.close()
    await turns()
    assert ends.counts == (0, 0)
    assert background_tasks() == frozenset()
