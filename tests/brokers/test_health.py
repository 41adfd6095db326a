"""What `app.health()`, and `/health`, tell of messages; a broker that is away stops nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from afresh import App
from afresh.brokers import ConsumerOptions
from afresh.brokers import broker as module
from afresh.primitives.delays import RetryDelays

from .shop import OrderPlaced, PlaceOrder, world


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ASK_EVERY", 0.02)
    monkeypatch.setattr("afresh.brokers.relay._COUNT_EVERY", 0.02)


async def until(found: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not found():
            await asyncio.sleep(0.01)


async def asked(app: App) -> tuple[int, dict[str, Any]]:
    """What whoever watches the process gets."""
    transport = httpx.ASGITransport(app=app.asgi())
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        answer = await client.get("/health")
    found: dict[str, Any] = answer.json()
    return answer.status_code, found


async def test_a_broker_that_is_away_degrades_an_app_and_does_not_stop_it() -> None:
    async with world() as w:
        await w.shop.call(PlaceOrder("u1", "before"))
        await w.settled(1)
        assert w.shop.health()["status"] == "ok"
        w.broker.stop()
        await w.shop.call(PlaceOrder("u1", "meanwhile"))
        await until(lambda: w.shop.health()["broker"]["outbox"][""]["unavailable"])
        await until(lambda: w.shop.health()["broker"]["outbox"][""]["pending"] == 1)
        status, found = await asked(w.shop)
        assert (status, found["status"]) == (200, "degraded")
        assert found["broker"]["connected"] is False
        outbox = found["broker"]["outbox"][""]
        assert outbox["oldest"] > 0
        assert found["database"]["name"] == "default"
        status, found = await asked(w.notes)  # which publishes nothing
        assert (status, found["status"]) == (200, "degraded")
        assert found["broker"]["subscriptions"][0]["error"]
        w.broker.resume()
        await w.settled(2)
        await until(lambda: w.shop.health()["status"] == w.notes.health()["status"] == "ok")
        await until(lambda: w.shop.health()["broker"]["outbox"][""]["pending"] == 0)


async def test_what_waits_for_a_group_is_told() -> None:
    options = ConsumerOptions(retries=RetryDelays.fixed(60), workers=1)
    async with world(consumer=options) as w:

        def lag() -> Any:
            return w.notes.health()["broker"]["subscriptions"][0]["lag"]

        await until(lambda: lag() == 0)
        w.service.failures["busy"] = [ConnectionError("busy")]
        await w.shop.call(PlaceOrder("u1", "busy"))
        await until(lambda: lag() == 1)
        found = w.notes.health()["broker"]["subscriptions"][0]
        assert found["retried"] == 1
        assert found["error"] is None


async def test_a_lag_that_can_not_be_asked_for_is_not_known() -> None:
    async with world() as w:
        (subscribed,) = w.notes.broker._subscribed.values()

        async def lost() -> int:
            raise ConnectionError("gone")

        await until(lambda: w.notes.health()["broker"]["subscriptions"][0]["lag"] == 0)
        subscribed.lag = lost  # type: ignore[method-assign]
        await until(lambda: w.notes.health()["broker"]["subscriptions"][0]["lag"] is None)
        assert w.notes.health()["status"] == "ok"


async def test_dead_messages_are_told_and_leave_the_app_as_it_is() -> None:
    async with world() as w:
        w.service.failures["bad"] = [ValueError("bad")]
        await w.shop.call(PlaceOrder("u1", "bad"))
        await until(lambda: w.notes.health()["broker"]["subscriptions"][0]["dead"] == 1)
        assert w.notes.health()["status"] == "ok"


async def test_a_delayed_message_ages_from_when_it_is_due() -> None:
    async with world() as w:
        w.broker.stop()
        async with w.shop.database.operation() as op:
            op.publish(OrderPlaced(1, "u1"), delay=3600)
        desk = w.shop.broker.outbox()
        figures = await desk.figures()
        assert (figures.pending, figures.oldest) == (1, 0.0)
        await w.shop.call(PlaceOrder("u1", "now"))
        figures = await desk.figures()
        assert figures.pending == 2
        assert 0 < figures.oldest < 60
