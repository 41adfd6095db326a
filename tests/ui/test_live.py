"""`@live`: a function that reads and builds stays up to date, and nothing else moves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from nicegui import app, ui

from afresh import MutableState
from afresh.errors import DefinitionError
from afresh.ui.nicegui import LiveBody, live

from .conftest import Numbers, Visit, another_user, sees, texts, until


async def test_it_shows_what_it_reads_and_every_change_of_it(
    visit: Visit, numbers: Numbers
) -> None:
    @live
    async def body() -> None:
        ui.label(f"a is {await numbers.get('a')}")

    async with visit(body) as user:
        await sees(user, "a is 0")
        numbers.set("a", 1)
        await sees(user, "a is 1")
        numbers.set("a", 2)
        await sees(user, "a is 2")


async def test_a_change_renders_only_the_part_that_read_it(visit: Visit, numbers: Numbers) -> None:
    runs: list[str] = []

    @live
    async def number(name: str) -> None:
        runs.append(name)
        ui.label(f"{name} {await numbers.get(name)}")

    def page() -> None:
        runs.append("page")
        number("a")
        number("b")

    async with visit(page) as user:
        await sees(user, "a 0", "b 0")
        numbers.set("b", 5)
        await sees(user, "a 0", "b 5")
        assert sorted(runs) == ["a", "b", "b", "page"]


async def test_every_visitor_follows_on_their_own(visit: Visit, numbers: Numbers) -> None:
    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))

    async with visit(body) as alice:
        bob = another_user()
        await bob.open("/")
        numbers.set("a", 7)
        await sees(alice, "7")
        await sees(bob, "7")
        assert numbers.computed == 2


async def test_a_mutable_state_is_followed_like_any_value(visit: Visit, numbers: Numbers) -> None:
    name = MutableState("a")
    numbers.values = {"a": 1, "b": 2}

    @live
    async def body() -> None:
        ui.label(str(await numbers.get(name.use())))

    async with visit(body) as user:
        await sees(user, "1")
        name.set("b")
        await sees(user, "2")


async def test_awaiting_it_puts_the_content_into_the_first_response(
    visit: Visit, numbers: Numbers
) -> None:
    @live
    async def body() -> None:
        ui.label(f"a is {await numbers.get('a')}")

    async def page() -> None:
        assert isinstance(await body(), LiveBody)

    async with visit(page) as user:
        response = await user.http_client.get("/")
        assert "a is 0" in response.text


async def test_it_works_on_methods_too(visit: Visit, numbers: Numbers) -> None:
    class Page:
        def __init__(self, name: str) -> None:
            self.name = name

        @live
        async def body(self) -> None:
            ui.label(f"{self.name} {await numbers.get(self.name)}")

    async with visit(lambda: Page("a").body()) as user:
        await sees(user, "a 0")


async def test_it_sees_the_storage_of_its_visitor(visit: Visit, numbers: Numbers) -> None:
    @live
    async def body() -> None:
        await numbers.get("a")
        seen = app.storage.user.setdefault("seen", 0) + 1
        app.storage.user["seen"] = seen
        ui.label(f"seen {seen}")

    async with visit(body) as user:
        await sees(user, "seen 1")
        numbers.set("a", 1)
        await sees(user, "seen 2")


async def test_a_change_while_it_renders_is_not_lost(visit: Visit, numbers: Numbers) -> None:
    gates: list[asyncio.Event] = []

    @live
    async def body() -> None:
        value = await numbers.get("a")
        gate = asyncio.Event()
        gates.append(gate)
        await gate.wait()
        ui.label(str(value))

    async with visit(body) as user:
        await until(lambda: len(gates) == 1)
        numbers.set("a", 1)  # read already: this run is stale before it ends
        gates[0].set()
        await until(lambda: len(gates) == 2)
        gates[1].set()
        await sees(user, "1")


async def test_other_arguments_render_at_once_and_equal_ones_not_at_all(
    visit: Visit, numbers: Numbers
) -> None:
    numbers.values = {"a": 1, "b": 2}
    placed: list[LiveBody[[str]]] = []
    runs: list[str] = []

    @live(delay=60)
    async def body(name: str) -> None:
        runs.append(name)
        ui.label(str(await numbers.get(name)))

    async with visit(lambda: placed.append(body("a"))) as user:
        await sees(user, "1")
        await placed[0].update_params("a")
        assert runs == ["a"]
        await placed[0].update_params("b")
        assert texts(user) == ["2"]


async def test_inner_parts_stay_while_they_are_asked_for_with_equal_arguments(
    visit: Visit, numbers: Numbers
) -> None:
    numbers.values = {"a": 1, "b": 2}
    runs: list[str] = []

    @live
    async def number(name: str) -> None:
        runs.append(name)
        ui.label(f"{name} {await numbers.get(name)}")

    @live
    async def body() -> None:
        runs.append("body")
        for name in sorted(await numbers.names()):
            number(name)

    async with visit(body) as user:
        await sees(user, "a 1", "b 2")
        numbers.set("aa", 3)
        await sees(user, "a 1", "aa 3", "b 2")
        del numbers.values["a"]
        numbers.names.invalidate()
        await sees(user, "aa 3", "b 2")
        assert runs == ["body", "a", "b", "body", "aa", "body"]


async def test_the_same_inner_part_may_be_placed_twice(visit: Visit, numbers: Numbers) -> None:
    @live
    async def number(name: str) -> None:
        ui.label(f"{name} {await numbers.get(name)}")

    @live
    async def body() -> None:
        ui.label(str(await numbers.get("b")))
        number("a")
        number("a")

    async with visit(body) as user:
        await sees(user, "0", "a 0", "a 0")
        numbers.set("b", 1)
        await sees(user, "1", "a 0", "a 0")
        numbers.set("a", 1)
        await sees(user, "1", "a 1", "a 1")


async def test_arguments_that_cannot_be_compared_by_hash_make_a_new_part(
    visit: Visit, numbers: Numbers
) -> None:
    @live
    async def both(names: list[str]) -> None:
        ui.label(" ".join(names))

    @live
    async def body() -> None:
        await numbers.get("a")
        both(["x", "y"])

    async with visit(body) as user:
        await sees(user, "x y")
        numbers.set("a", 1)
        await asyncio.sleep(0.1)
        await sees(user, "x y")


async def test_a_new_inner_part_has_its_content_when_it_appears(
    visit: Visit, numbers: Numbers
) -> None:
    """Otherwise the page would flicker."""
    numbers.values = {"a": 0}
    seen: list[list[str]] = []

    @live
    async def inner(value: int) -> None:
        await asyncio.sleep(0.02)
        ui.label(f"inner {value}")

    @live
    async def body() -> None:
        inner(await numbers.get("a"))

    async with visit(body) as user:
        await sees(user, "inner 0")
        numbers.set("a", 1)
        while texts(user) != ["inner 1"]:
            seen.append(texts(user))
            await asyncio.sleep(0)
        assert [] not in seen


async def test_a_handler_that_began_before_a_rendering_still_reaches_its_place(
    visit: Visit, numbers: Numbers
) -> None:
    go_on = asyncio.Event()

    async def add() -> None:
        await go_on.wait()
        ui.label("added")

    @live
    async def body() -> None:
        with ui.row():
            ui.button("Add", on_click=add)
            ui.label(str(await numbers.get("a")))

    async with visit(body) as user:
        await sees(user, "Add", "0")
        user.find("Add").click()
        numbers.set("a", 1)
        await sees(user, "Add", "1")
        go_on.set()
        await sees(user, "Add", "1", "added")


async def test_a_timer_made_by_a_body_reads_for_itself(visit: Visit, numbers: Numbers) -> None:
    """What it reads later is nothing that the body follows."""
    runs = 0
    ticks: list[int] = []

    async def tick() -> None:
        ticks.append(await numbers.get("b"))

    @live
    async def body() -> None:
        nonlocal runs
        runs += 1
        ui.label(str(await numbers.get("a")))
        ui.timer(0.01, tick)

    async with visit(body) as user:
        await until(lambda: ticks)
        numbers.set("b", 1)
        await until(lambda: ticks[-1] == 1)
        await asyncio.sleep(0.1)
        assert runs == 1
        numbers.set("a", 1)
        await sees(user, "1")


@pytest.mark.parametrize("function", [lambda: None, print])
def test_a_function_that_is_not_async_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(DefinitionError, match="async def"):
        live(function)
