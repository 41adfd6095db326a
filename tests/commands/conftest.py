"""A commander for each test."""

from collections.abc import AsyncIterator

import pytest

from afresh.commands import Commander


@pytest.fixture
async def commander() -> AsyncIterator[Commander]:
    commander = Commander()
    yield commander
    await commander.aclose()
