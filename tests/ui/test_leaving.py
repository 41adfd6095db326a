"""When a visitor leaves, nothing of the page goes on: no task, no node, no element."""

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest
from nicegui import Client, ui
from nicegui.testing import User

from afresh.primitives.tasks import background_tasks
from afresh.ui.nicegui import LiveBody, live, live_badge, live_label

from .conftest import Numbers, Visit, another_user, sees, strays, until


def remains(numbers: Numbers) -> list[str]:
    """The states that still follow a number, and the tasks that update states."""
    gc.collect()
    results = [numbers.get.existing(name) for name in ("a", "b", "c")]
    followers = [each.category for result in results if result for each in result.dependants]
    return followers + [task.get_name() for task in background_tasks() & asyncio.all_tasks()]


async def delete(user: User) -> None:
    """The browser is gone for longer than NiceGUI waits for it to come back."""
    assert user.client is not None
    user.client.delete()
    user.client = None


async def test_nothing_is_left_of_a_page_that_was_closed(visit: Visit, numbers: Numbers) -> None:
    @live
    async def inner(name: str) -> None:
        ui.label(f"{name} {await numbers.get(name)}")

    @live
    async def body() -> None:
        ui.label(str(await numbers.get("c")))
        inner("a")
        inner("b")

    def page() -> None:
        part = body()
        live_badge(part)
        live_label(lambda: numbers.get("a"))

    async with visit(page) as user:
        await sees(user, "0", "a 0", "b 0", "In sync", "0")
        assert len(remains(numbers)) == 4
        assert user.client is not None
        elements = [weakref.ref(each) for each in user.client.layout.descendants()]
        await delete(user)
        await until(lambda: not remains(numbers))
        await until(lambda: gc.collect() >= 0 and not [each for each in elements if each()])
        computed = numbers.computed
        numbers.set("a", 1)
        await asyncio.sleep(0.1)
        assert numbers.computed == computed


async def test_leaving_does_not_disturb_others(visit: Visit, numbers: Numbers) -> None:
    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))

    async with visit(body) as alice:
        bob = another_user()
        await bob.open("/")
        await sees(bob, "0")
        await delete(alice)
        numbers.set("a", 1)
        await sees(bob, "1")


async def test_nothing_is_left_of_a_page_that_never_connected(
    visit: Visit, numbers: Numbers
) -> None:
    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))

    async with visit(body) as user:
        await sees(user, "0")
        await delete(user)
        await until(lambda: not remains(numbers))
        await user.http_client.get("/")
        await until(lambda: remains(numbers))
        Client.prune_instances(client_age_threshold=0)
        await until(lambda: not remains(numbers))


async def test_a_rendering_under_way_is_given_up(visit: Visit, numbers: Numbers) -> None:
    outcomes: list[str] = []

    @live
    async def body() -> None:
        try:
            ui.label(str(await numbers.get("a")))
            if numbers.values:
                outcomes.append("waits")
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise

    async with visit(body) as user:
        await sees(user, "0")
        numbers.set("a", 1)
        await until(lambda: outcomes == ["waits"])
        await delete(user)
        await until(lambda: outcomes == ["waits", "cancelled"])
        await until(lambda: not remains(numbers))


async def test_an_update_that_waits_for_its_delay_is_given_up(
    visit: Visit, numbers: Numbers
) -> None:
    @live(delay=60)
    async def body() -> None:
        ui.label(str(await numbers.get("a")))

    async with visit(body) as user:
        await sees(user, "0")
        numbers.set("a", 1)
        await until(lambda: len(remains(numbers)) == 1)
        await delete(user)
        await until(lambda: not remains(numbers))


async def test_a_rendering_of_a_part_that_is_taken_off_meanwhile_leaves_nothing(
    visit: Visit, numbers: Numbers
) -> None:
    gates: list[asyncio.Event] = []
    placed: list[LiveBody[[]]] = []

    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))
        gates.append(asyncio.Event())
        await gates[-1].wait()
        ui.label("late")

    async with visit(lambda: placed.append(body())) as user:
        await until(lambda: len(gates) == 1)
        gates[0].set()
        await sees(user, "0", "late")
        refreshing = asyncio.create_task(placed[0].refresh())  # as a handler's task would
        await until(lambda: len(gates) == 2)
        placed[0].delete()
        gates[1].set()
        await asyncio.wait([refreshing])
        refreshing.exception()
        assert strays(user) == set()


@pytest.mark.parametrize("remove", [lambda box: box.clear(), lambda box: box.delete()])
async def test_nothing_is_left_of_a_part_taken_off_the_page(
    visit: Visit, numbers: Numbers, remove: Callable[[ui.card], object]
) -> None:
    boxes: list[ui.card] = []

    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))

    def page() -> None:
        with ui.card() as box:
            body()
        boxes.append(box)

    async with visit(page) as user:
        await sees(user, "0")
        assert remains(numbers)
        remove(boxes[0])
        await until(lambda: not remains(numbers))


async def test_many_visits_leave_no_more_than_one(visit: Visit, numbers: Numbers) -> None:
    placed: weakref.WeakSet[LiveBody[[]]] = weakref.WeakSet()

    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))

    async with visit(lambda: placed.add(body())) as user:
        await sees(user, "0")
        for _ in range(5):
            visitor = another_user()
            await visitor.open("/")
            await sees(visitor, "0")
            assert len(placed) > 1
            await delete(visitor)
        await until(lambda: len(remains(numbers)) == 1)
        await until(lambda: gc.collect() >= 0 and len(placed) == 1)
