"""What processes report adds up, whoever of them is started again or replaced."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from afresh import ComputedState
from examples.shop.backstage.board import LiveBoard
from examples.shop.backstage.contracts import Counts, Happening, Kind, Report
from examples.shop.backstage.reporter import described, event_text
from examples.shop.contracts import PlaceOrder, PutIntoBasket

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def happening(second: int, kind: Kind, text: str) -> Happening:
    return Happening(NOW + timedelta(seconds=second), "any", kind, text)


async def test_a_process_that_is_started_again_goes_on_from_where_it_was() -> None:
    board = LiveBoard()
    await board.report(Report("analytics", "analytics", "run 1", Counts(received=3, pending=2)))
    await board.report(Report("analytics", "analytics", "run 1", Counts(received=5, pending=1)))
    await board.report(Report("analytics", "analytics", "run 2", Counts(received=1)))
    assert await board.counts("analytics") == Counts(received=6)
    assert await board.counts("nobody") == Counts()
    assert await board.processes() == ("analytics",)


async def test_workers_that_are_alike_get_numbers_and_share_an_outbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("examples.shop.backstage.board.time.monotonic", lambda: now)
    board = LiveBoard()
    for run in ("a", "b", "a"):
        counts = Counts(commands=2, pending=7, oldest=3.5)
        await board.report(Report("worker", "shop", run, counts, orders=4))
    await board.report(Report("inventory", "inventory", "c", Counts(pending=1, oldest=9)))
    assert await board.processes() == ("worker 1", "worker 2", "inventory")
    assert await board.total() == Counts(commands=4, pending=8, oldest=9)
    assert await board.orders("shop") == 4

    now = 110.0
    await board.report(Report("worker", "shop", "a", Counts(commands=3)))
    await board.report(Report("worker", "shop", "new", Counts(commands=1)))
    assert await board.processes() == ("worker 1", "worker 2", "inventory")
    assert (await board.counts("worker 2")).commands == 3


async def test_the_feed_tells_the_newest_first_of_the_kinds_that_are_wanted() -> None:
    board = LiveBoard()
    happenings = (happening(1, "publish", "one"), happening(3, "receive", "three"))
    await board.report(Report("shop", "shop", "a", Counts(), None, happenings))
    later = (happening(2, "publish", "two"),)
    await board.report(Report("analytics", "analytics", "b", Counts(), None, later))
    async with board.watching():
        state = await board.feed.capture(10)
        assert [each.text for each in state.value] == ["three", "two", "one"]
        assert [each.process for each in state.value] == ["shop", "analytics", "shop"]
        assert [each.text for each in await board.feed(10, ("publish",))] == ["two", "one"]
        assert [each.text for each in await board.feed(1)] == ["three"]
        board.tell("process", "NATS has stopped", process="broker")
        async with asyncio.timeout(5):
            await state.when_invalidated()
        assert (await board.feed(1))[0].text == "NATS has stopped"


async def test_what_happens_within_a_second_is_a_sample() -> None:
    board = LiveBoard()
    async with board.watching(), ComputedState(board.rates, delay=0.01) as rates:
        await board.report(Report("shop", "shop", "a", Counts(commands=2, pending=3)))
        async with asyncio.timeout(10):
            async for samples in rates:
                if samples:
                    break
            assert samples[0].counts == Counts(commands=2, pending=3)
            await board.report(Report("shop", "shop", "a", Counts(commands=5)))
            async for samples in rates:
                if samples and samples[-1].counts == Counts(commands=3):
                    break


def test_the_feed_is_in_words() -> None:
    assert described(PutIntoBasket("alice", "cake", 2)) == "PutIntoBasket alice cake 2"
    assert described(PlaceOrder("bob")) == "PlaceOrder bob"
    assert event_text("shop.order_placed.v1", b'{"order_id": 17}') == "OrderPlaced #17"
    assert event_text("warehouse.running_low.v2", b'{"product": "Cake"}') == "RunningLow Cake"
    assert event_text("shop.order_placed.v1", b"{") == "OrderPlaced, unreadable"
    assert event_text("ping", b"[]") == "Ping"
