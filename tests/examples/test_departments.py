"""The departments hear of orders exactly as they were committed, whatever breaks on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples.shop.backstage.contracts import (
    BackstageError,
    Counts,
    Drop,
    LetFail,
    Requeue,
    SendDuplicate,
    SendPoison,
    SendUnknown,
)
from examples.shop.departments.contracts import DEPARTMENTS, Refill
from examples.shop.events import LISTENERS, Ordered, OrderPacked, OrderPlaced

from .market import Market, market, until


@pytest.fixture
async def shopping(tmp_path: Path) -> AsyncIterator[Market]:
    """The shop, the departments and the backstage."""
    async with market(tmp_path) as it:
        yield it


async def counted(it: Market, process: str, **expected: int) -> Counts:
    """Wait until a process has reported these counts."""

    async def is_so() -> bool:
        counts = await it.board.counts(process)
        return all(getattr(counts, name) == value for name, value in expected.items())

    try:
        await until(is_so, 10)
    except TimeoutError:
        raise AssertionError(f"{process}: {await it.board.counts(process)}") from None
    return await it.board.counts(process)


async def test_an_order_reaches_every_department(shopping: Market) -> None:
    inventory = shopping.departments["inventory"].service
    notifications = shopping.departments["notification"].service
    analytics = shopping.departments["analytics"].service
    before = {each.product_id: each.there for each in await inventory.stock()}
    order = await shopping.order("cake")
    await shopping.handled(1)

    async def is_packed() -> bool:
        return await notifications.count() == 2 and (await analytics.summary()).packed == 1

    await until(is_packed)
    subjects = {each.subject for each in await notifications.latest(10)}
    assert subjects == {
        f"Thank you for order #{order.id}",
        f"Order #{order.id} is on its way",
    }
    summary = await analytics.summary()
    assert (summary.orders, summary.pieces, summary.amount) == (1, 1, 1400)
    assert [each.product for each in await analytics.by_product()] == ["Lemon drizzle cake"]
    assert [each.customer for each in await analytics.by_customer()] == ["Alice"]
    assert [each.amount for each in await analytics.by_minute()] == [1400]

    async def has_left() -> bool:
        cake = next(each for each in await inventory.stock() if each.product_id == "cake")
        return (cake.there, cake.reserved) == (before["cake"] - 1, 0)

    await until(has_left)
    assert [each.kind for each in await inventory.movements(5)] == ["shipped", "reserved"]


async def test_pages_of_departments_are_live(shopping: Market) -> None:
    analytics = shopping.departments["analytics"].service
    shown = [
        await analytics.by_product.capture(),
        await shopping.departments["notification"].service.latest.capture(5),
        await shopping.departments["inventory"].service.movements.capture(5),
    ]
    await shopping.order()
    async with asyncio.timeout(10):
        for each in shown:
            await each.when_invalidated()


async def test_little_left_in_the_warehouse_is_told_once_until_it_is_refilled(
    shopping: Market,
) -> None:
    inventory = shopping.departments["inventory"].service
    notifications = shopping.departments["notification"].service
    lines = tuple(Ordered("cake", "Lemon drizzle cake", 2, 1400) for _ in range(1))

    async def place(order_id: int) -> None:
        await inventory.reserve(OrderPlaced(order_id, "bob", "Bob", lines, 2800))

    async def warnings() -> int:
        return len([each for each in await notifications.latest(50) if each.kind == "low"])

    for order_id in range(100, 104):
        await place(order_id)

    async def is_told() -> bool:
        return await warnings() == 1

    await until(is_told)
    await inventory.refill(Refill("cake", 30))
    cake = next(each for each in await inventory.stock() if each.product_id == "cake")
    assert (cake.left, cake.is_low) == (36, False)
    for order_id in range(104, 118):
        await place(order_id)

    async def is_told_again() -> bool:
        return await warnings() == 2

    await until(is_told_again)


async def test_what_is_packed_before_it_was_heard_of_leaves_the_house_then(
    shopping: Market,
) -> None:
    inventory = shopping.departments["inventory"].service
    await inventory.ship(OrderPacked(7, "bob", "Bob"))
    lines = (Ordered("eggs", "Free-range eggs", 3, 490),)
    await inventory.reserve(OrderPlaced(7, "bob", "Bob", lines, 1470))
    eggs = next(each for each in await inventory.stock() if each.product_id == "eggs")
    assert (eggs.there, eggs.reserved) == (57, 0)


async def test_departments_listen_to_what_the_backstage_takes_them_to(shopping: Market) -> None:
    for name, department in shopping.departments.items():
        subscriptions = department.app.broker.subscriptions
        assert {each.group for each in subscriptions} == {name}
        assert {each.destination for each in subscriptions} == set(LISTENERS[name])


async def test_orders_placed_while_the_broker_is_away_arrive_when_it_is_back(
    shopping: Market,
) -> None:
    shopping.broker.stop()
    for _ in range(5):
        await shopping.order()
    await counted(shopping, "shop", published=0, pending=10)
    assert (await shopping.board.total()).oldest > 0
    for name in DEPARTMENTS:
        assert await shopping.departments[name].service.orders() == 0
    shopping.broker.resume()
    await shopping.handled(5)
    await counted(shopping, "shop", published=10, pending=0)
    for name in DEPARTMENTS:
        await counted(shopping, name, received=10, duplicates=0, retried=0, dead=0)
        assert await shopping.board.orders(name) == 5
    assert await shopping.board.orders("shop") == 5


async def test_a_department_that_was_away_catches_up(shopping: Market) -> None:
    await shopping.order()
    await shopping.handled(1)
    await shopping.close("notification")
    for _ in range(3):
        await shopping.order()
    again = await shopping.open("notification")
    await shopping.handled(4)
    placed = [each for each in await again.service.latest(50) if each.kind == "placed"]
    assert len(placed) == 4
    await counted(shopping, "notification", received=8)


async def test_poison_is_put_aside_once_for_each_department_and_requeued_or_dropped(
    shopping: Market,
) -> None:
    mischief = shopping.mischief
    await mischief.send_poison(SendPoison())
    for name in DEPARTMENTS:
        await counted(shopping, name, dead=1)

        async def is_there(name: str = name) -> bool:
            return len(await mischief.dead(name)) == 1

        await until(is_there)
        (letter,) = await mischief.dead(name)
        assert (letter.channel, letter.type, letter.error) == (
            "shop",
            "shop.order_placed.v1",
            "EnvelopeError",
        )
        assert letter.body.startswith('{"order_id": 13')
    assert await mischief.drop(Drop("analytics", (letter.id + "0",))) == 0
    assert await mischief.drop(Drop("analytics")) == 1
    assert await mischief.dead("analytics") == ()
    (letter,) = await mischief.dead("inventory")
    assert await mischief.requeue(Requeue("inventory", (letter.id,))) == 1
    await counted(shopping, "inventory", dead=2)
    assert len(await mischief.dead("notification")) == 1
    await shopping.order()
    await shopping.handled(1)


async def test_a_duplicate_is_counted_and_has_no_effect(shopping: Market) -> None:
    with pytest.raises(BackstageError, match="Order something first"):
        await shopping.mischief.send_duplicate(SendDuplicate())
    await shopping.order()
    await shopping.handled(1)
    await counted(shopping, "shop", published=2)
    await shopping.mischief.send_duplicate(SendDuplicate())
    for name in DEPARTMENTS:
        await counted(shopping, name, duplicates=1, received=3, dead=0)
    await shopping.handled(1)
    assert await shopping.departments["notification"].service.count() == 2


async def test_an_unknown_event_is_counted_and_has_no_effect(shopping: Market) -> None:
    await shopping.mischief.send_unknown(SendUnknown())
    for name in DEPARTMENTS:
        await counted(shopping, name, unknown=1, received=1, dead=0)
        assert await shopping.mischief.dead(name) == ()


async def test_a_department_that_fails_tries_again_until_it_works(shopping: Market) -> None:
    await shopping.mischief.let_fail(LetFail("inventory", True))
    assert await shopping.mischief.is_failing("inventory")
    await shopping.order()

    async def is_retried() -> bool:
        return (await shopping.board.counts("inventory")).retried > 1

    await until(is_retried)
    assert await shopping.departments["inventory"].service.orders() == 0
    assert await shopping.departments["analytics"].service.orders() == 1
    await shopping.mischief.let_fail(LetFail("inventory", False))
    await shopping.handled(1)
    await counted(shopping, "inventory", received=2, dead=0, duplicates=0)


async def test_levers_say_what_is_wrong(shopping: Market) -> None:
    with pytest.raises(BackstageError, match="no department 'bakery'"):
        await shopping.mischief.let_fail(LetFail("bakery", True))
    with pytest.raises(BackstageError, match="no department 'bakery'"):
        await shopping.mischief.drop(Drop("bakery"))
    shopping.broker.stop()
    with pytest.raises(BackstageError, match="The broker is away"):
        await shopping.mischief.send_poison(SendPoison())
    assert await shopping.mischief.dead("analytics") == ()
    shopping.broker.resume()
