"""When a computation fails, the last good content stays and the visitor is told."""

from typing import Any, ClassVar

import pytest
from nicegui import ui

from afresh import ComputeService, compute_method
from afresh.ui.nicegui import LiveElement, act, live, live_label, page_defaults

from .conftest import Numbers, Visit, sees, strays, until


async def test_the_last_good_content_stays_under_a_banner_until_it_works_again(
    visit: Visit, numbers: Numbers
) -> None:
    @live
    async def body() -> None:
        ui.label("first")
        ui.label(str(await numbers.get("a")))

    async with visit(body) as user:
        await sees(user, "first", "0")
        numbers.break_down()
        banner = ("Could not update: the database is away", "Try again")
        await sees(user, *banner, "first", "0")
        numbers.values["a"] = 1
        numbers.break_down(False)
        await sees(user, "first", "1")
        assert strays(user) == set()


async def test_what_a_failing_run_had_built_is_dropped(visit: Visit, numbers: Numbers) -> None:
    placed: list[LiveElement[Any]] = []

    @live
    async def body() -> None:
        with ui.card():
            ui.label("half")
            ui.label(str(await numbers.get("a")))

    async with visit(lambda: placed.append(body())) as user:
        await sees(user, "half", "0")
        numbers.broken = True
        numbers.get.invalidate("a")
        await placed[0].refresh()
        await sees(user, "Could not update: the database is away", "Try again", "half", "0")
        assert strays(user) == set()


async def test_a_first_run_may_fail_too(visit: Visit, numbers: Numbers) -> None:
    numbers.broken = True

    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))

    async with visit(body) as user:
        await sees(user, "Could not update: the database is away", "Try again")
        numbers.break_down(False)
        await sees(user, "0")


async def test_the_visitor_can_try_again(visit: Visit) -> None:
    outcomes = [ValueError("no luck"), None]

    @live(delay=60)
    async def body() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        ui.label("luck")

    async with visit(body) as user:
        await sees(user, "Could not update: no luck", "Try again")
        user.find("Try again").click()
        await sees(user, "luck")


async def test_trying_again_computes_what_had_failed_below(visit: Visit) -> None:
    class Prices(ComputeService):
        failures = 1
        computed: ClassVar[list[str]] = []

        @compute_method
        async def of(self, product: str) -> int:
            self.computed.append(product)
            if product == "cake" and self.failures:
                self.failures -= 1
                raise ValueError("no price")
            return 1

        @compute_method
        async def total(self, *products: str) -> int:
            return sum([await self.of(each) for each in products])

    prices = Prices()

    @live(delay=60)
    async def body() -> None:
        ui.label(str(await prices.total("tea", "cake")))

    async with visit(body) as user:
        await sees(user, "Could not update: no price", "Try again")
        user.find("Try again").click()
        await sees(user, "2")
        assert prices.computed == ["tea", "cake", "cake"]


async def test_an_error_inside_stays_inside(visit: Visit, numbers: Numbers) -> None:
    @live
    async def inner() -> None:
        ui.label(str(await numbers.get("a")))

    @live
    async def body() -> None:
        ui.label("outer")
        inner()

    numbers.broken = True
    async with visit(body) as user:
        await sees(user, "outer", "Could not update: the database is away", "Try again")


async def test_what_visitors_read_can_be_replaced(
    visit: Visit, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_defaults, "describe_error", lambda _: "please wait")
    numbers.broken = True

    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))

    def page() -> None:
        body()
        ui.button("Buy", on_click=act(numbers.get, "b"))

    async with visit(page) as user:
        await sees(user, "Could not update: please wait", "Try again", "Buy")
        user.find("Buy").click()
        await user.should_see("please wait")
        await until(lambda: user.notify.messages == ["please wait"])


async def test_an_error_of_many_lines_shows_its_first(visit: Visit) -> None:
    @live
    async def body() -> None:
        raise ValueError("no such table\n[SQL: SELECT secret]")

    async with visit(body) as user:
        await sees(user, "Could not update: no such table", "Try again")


async def test_a_label_dims_and_explains_itself(visit: Visit, numbers: Numbers) -> None:
    async with visit(lambda: live_label(lambda: numbers.get("a"), "{} left".format)) as user:
        await sees(user, "0 left")
        (label,) = user.find("0 left").elements
        numbers.break_down()
        await until(lambda: "opacity" in label.style)
        assert label.props["title"] == "Could not update: the database is away"
        numbers.values["a"] = 1
        numbers.break_down(False)
        await sees(user, "1 left")
        assert "opacity" not in label.style
        assert "title" not in label.props


async def test_an_error_while_showing_counts_as_well(visit: Visit, numbers: Numbers) -> None:
    class Picky(LiveElement[int]):
        def __init__(self) -> None:
            super().__init__()
            with self:
                self.label = ui.label()

        async def compute(self) -> int:
            return await numbers.get("a")

        def show(self, value: int) -> None:
            if value == 1:
                raise ValueError("not a one")
            self.label.text = str(value)

    async with visit(Picky) as user:
        await sees(user, "0")
        numbers.set("a", 1)
        await sees(user, "Could not update: not a one", "Try again", "0")
        numbers.set("a", 2)
        await sees(user, "2")
