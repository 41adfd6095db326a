"""Readers wait until this host has applied what they know of, and no longer than they may."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from afresh.operations import Freshness, FreshnessGate
from afresh.primitives.clock import current_clock, use_clock
from afresh.testing import FakeClock


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


class Log:
    """A log that is applied up to an index."""

    def __init__(self, applied: int) -> None:
        self.applied = applied
        self.asked: list[int] = []

    async def wait_for(self, index: int, timeout: float) -> bool:
        self.asked.append(index)
        until = current_clock().now() + timeout
        while self.applied < index and current_clock().now() < until:
            await current_clock().sleep(0.1)
        return self.applied >= index


@pytest.fixture
def logs() -> dict[str, Log]:
    return {"north": Log(10), "south": Log(20)}


@pytest.fixture
def gate(logs: dict[str, Log]) -> FreshnessGate:
    gate = FreshnessGate()
    for name, log in logs.items():
        gate.add(("shop", name), log.wait_for)
    return gate


async def test_what_is_applied_is_not_waited_for(gate: FreshnessGate, clock: FakeClock):
    assert await gate.wait(Freshness.parse("shop/north@10,shop/south@3"), 2)
    assert clock.timers == 0


async def test_each_log_that_a_token_names_is_waited_for(
    gate: FreshnessGate, logs: dict[str, Log], clock: FakeClock
):
    waiting = asyncio.create_task(gate.wait(Freshness.parse("shop/north@11,shop/south@21"), 2))
    await clock.advance(1)
    logs["north"].applied = 11
    await clock.advance(0.5)
    assert not waiting.done()
    logs["south"].applied = 21
    await clock.advance(0.2)
    assert await waiting
    assert gate.health() == {"waited": 1, "missed": 0}


async def test_one_log_that_is_late_is_enough_to_be_told_so(
    gate: FreshnessGate, logs: dict[str, Log], clock: FakeClock
):
    waiting = asyncio.create_task(gate.wait(Freshness.parse("shop/north@11,shop/south@3"), 2))
    await clock.advance(2.2)
    assert not await waiting
    assert gate.health() == {"waited": 1, "missed": 1}


async def test_logs_that_are_not_followed_here_are_not_waited_for(
    gate: FreshnessGate, clock: FakeClock
):
    assert await gate.wait(Freshness.parse("shop/west@99,other/@99"), 2)
    gate.remove(("shop", "north"))
    gate.remove(("shop", "north"))
    assert await gate.wait(Freshness.parse("shop/north@99"), 2)
    assert gate.waited == 0


async def test_readers_that_waited_in_vain_are_logged_now_and_then(
    gate: FreshnessGate, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "afresh.operations")
    for _ in range(20):
        waiting = asyncio.create_task(gate.wait(Freshness.parse("shop/north@99"), 1))
        await clock.advance(1.2)
        assert not await waiting
    assert gate.missed == 20
    assert 2 <= len(caplog.records) <= 3
    assert "served with what is there" in caplog.text


async def test_calls_from_elsewhere_bring_their_token_as_a_text(
    gate: FreshnessGate, logs: dict[str, Log], clock: FakeClock
):
    wait = gate.gate(0.5)
    assert await wait("shop/north@10")
    assert not await wait("garbage")
    assert logs["north"].asked == [10]
    waiting = asyncio.create_task(wait("shop/north@11"))
    await clock.advance(0.7)
    assert not await waiting
