"""A visitor's own actions show at once, and their errors reach the visitor."""

import asyncio
import gc

import pytest
from nicegui import ui

from afresh.ui.nicegui import act, action_tracker, live, page_defaults, run_action

from .conftest import Numbers, Visit, another_user, sees, texts, until


async def test_own_actions_show_at_once_and_those_of_others_after_the_delay(
    visit: Visit, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_defaults, "update_delay", 600)

    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))

    async def count() -> None:
        numbers.set("a", numbers.values.get("a", 0) + 1)

    def page() -> None:
        body()
        ui.button("Count", on_click=act(count))

    async with visit(page) as alice:
        bob = another_user()
        await bob.open("/")
        await sees(alice, "0", "Count")
        await sees(bob, "0", "Count")
        alice.find("Count").click()
        await sees(alice, "1", "Count")
        await asyncio.sleep(0.1)
        assert texts(bob) == ["0", "Count"]
        bob.find("Count").click()
        await sees(bob, "2", "Count")


async def test_an_error_reaches_the_visitor(visit: Visit) -> None:
    async def fail() -> None:
        raise ValueError("Sold out")

    async with visit(lambda: ui.button("Buy", on_click=act(fail))) as user:
        user.find("Buy").click()
        await user.should_see("Sold out")


async def test_functions_need_not_be_async_and_get_their_arguments(visit: Visit) -> None:
    heard: list[tuple[object, ...]] = []

    def note(*args: object, **kwargs: object) -> None:
        heard.append((*args, kwargs))

    async with visit(lambda: ui.button("Go", on_click=act(note, 1, two=2))) as user:
        user.find("Go").click()
        await until(lambda: heard == [(1, {"two": 2})])


async def test_an_action_may_outlive_the_button_that_began_it(
    visit: Visit, numbers: Numbers
) -> None:
    go_on = asyncio.Event()

    async def buy() -> None:
        numbers.set("a", 1)
        await go_on.wait()
        gc.collect()
        ui.label("Thank you")

    @live
    async def body() -> None:
        if not await numbers.get("a"):
            with ui.row():
                ui.button("Buy", on_click=act(buy))

    async with visit(body) as user:
        await user.should_see("Buy")
        user.find("Buy").click()
        await user.should_not_see("Buy")
        go_on.set()
        await sees(user, "Thank you")


async def test_an_action_may_outlive_its_visitor(
    visit: Visit, caplog: pytest.LogCaptureFixture
) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        began.set()
        await go_on.wait()
        raise ValueError("too late")

    async with visit(lambda: ui.button("Go", on_click=act(fail))) as user:
        user.find("Go").click()
        await began.wait()
        assert user.client is not None
        user.client.delete()
        go_on.set()
        await until(lambda: "too late" in caplog.text)
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_handler_gets_the_result_of_an_action(visit: Visit) -> None:
    results: list[object] = []

    async def double(number: int) -> int:
        if number < 0:
            raise ValueError("negative")
        return 2 * number

    async def handler() -> None:
        good = await run_action(double, 21)
        bad = await run_action(double, -1)
        results.extend([good.value, bad.is_ok, action_tracker().last_result])
        assert results[-1] is bad

    async with visit(lambda: ui.button("Go", on_click=handler)) as user:
        user.find("Go").click()
        await until(lambda: len(results) == 3)
        assert results[:2] == [42, False]
        await user.should_see("negative")


async def test_each_visitor_has_a_tracker_that_stops_with_the_visit(visit: Visit) -> None:
    async with visit(lambda: ui.label("hello")) as alice:
        bob = another_user()
        await bob.open("/")
        assert alice.client is not None
        of_alice = action_tracker(alice.client)
        assert of_alice is action_tracker(alice.client)
        assert of_alice is not action_tracker(bob.client)
        alice.client.delete()
        assert of_alice.is_stopped
