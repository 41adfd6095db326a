"""The limit to how long dialling takes."""

import asyncio

import pytest

from afresh.errors import CallTimeoutError
from afresh.rpc.transports.deadline import Deadline
from afresh.testing import FakeClock


async def test_what_is_done_in_time_is_left_alone(clock: FakeClock) -> None:
    async with Deadline(1, "late"):
        await asyncio.sleep(0)
    await clock.advance(2)
    assert clock.timers == 0


async def test_what_is_late_fails_with_the_message(clock: FakeClock) -> None:
    async def wait() -> None:
        async with Deadline(1, "too late"):
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await clock.advance(1)
    with pytest.raises(CallTimeoutError, match="too late"):
        await waiting


async def test_its_own_errors_come_through(clock: FakeClock) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Deadline(1, "late"):
            raise ZeroDivisionError
    assert clock.timers == 0


async def test_somebody_elses_cancellation_is_no_timeout(clock: FakeClock) -> None:
    async def wait() -> None:
        async with Deadline(1, "late"):
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert clock.timers == 0


async def test_a_cancellation_that_comes_with_the_deadline_wins(clock: FakeClock) -> None:
    async def wait() -> None:
        async with Deadline(1, "late"):
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    clock.advance_sync(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
