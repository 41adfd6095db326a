from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from afresh.db.tracking import track
from tests.db.tracking.shop import Base


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    """A tracked SQLite in memory, with the tables of the shop and working savepoints."""
    made = create_async_engine("sqlite+aiosqlite://")

    @event.listens_for(made.sync_engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(made.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN", execution_options={"touches": ()})

    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    stop = track(made)
    yield made
    stop()
    await made.dispose()
