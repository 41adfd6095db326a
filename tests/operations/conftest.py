"""A commander with operations for each test, in memory only."""

from collections.abc import AsyncIterator

import pytest

from tests.operations.library import Host


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    yield host
    await host.commander.aclose()


@pytest.fixture
async def other() -> AsyncIterator[Host]:
    """Another host."""
    host = Host()
    yield host
    await host.commander.aclose()
