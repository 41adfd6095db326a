"""Who watches a broker is told of each message, and what became of it."""

from __future__ import annotations

import asyncio

from afresh.brokers import HandledMessage, Outcome, OutgoingMessage, PublishedMessage

from .shop import PlaceOrder, world


async def test_each_message_is_told_of_with_what_became_of_it() -> None:
    async with world() as w:
        published: list[PublishedMessage] = []
        handled: list[HandledMessage] = []
        w.shop.broker.on_published(published.append)
        stop = w.notes.broker.on_handled(handled.append)
        w.service.failures["late"] = [ConnectionError("away")]
        await w.shop.call(PlaceOrder("u1", "late"))
        await w.settled(1)
        message = published[0].message
        for body, number, kind in [
            (message.body, message.id, "tests.order_placed.v1"),
            (b"{", "poison", "tests.order_placed.v1"),
            (b"{}", "strange", "tests.strange.v1"),
        ]:
            attributes = {**message.attributes, "id": number, "type": kind}
            await w.shop.broker.transport.publish(
                [OutgoingMessage(number, message.destination, kind, body, attributes=attributes)]
            )
        async with asyncio.timeout(10):
            while len(handled) < 5:
                await asyncio.sleep(0.01)
        assert [each.result.outcome for each in published] == [Outcome.CONFIRMED]
        assert sorted(each.outcome for each in handled) == [
            "dead",
            "duplicate",
            "handled",
            "retried",
            "unknown",
        ]
        assert {each.group for each in handled} == {"notes"}
        assert next(each for each in handled if each.outcome == "dead").message.body == b"{"

        stop()
        await w.shop.call(PlaceOrder("u1", "unseen"))
        await w.settled(2)
        assert len(handled) == 5
