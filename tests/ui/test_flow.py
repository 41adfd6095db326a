"""The page behind the shop, to simulated visitors: what it says, and what its levers do."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement
from nicegui.testing import User
from nicegui.testing.user_interaction import UserInteraction

from afresh import App
from examples.shop.backstage.contracts import BROKER, DeadLetterView
from examples.shop.contracts import Shop
from examples.shop.data import shop_database
from examples.shop.departments.contracts import DEPARTMENTS
from examples.shop.flow.figures import age, path, short
from examples.shop.flow.page import FlowPage
from examples.shop.flow.traffic import Traffic
from examples.shop.flow.verdict import Ledger
from examples.shop.server import start
from examples.shop.services import open_shop

from .conftest import Visit, texts, until
from .rehearsal import Rehearsal


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop with full shelves."""
    app = App(database=shop_database(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"))
    shop = open_shop(app)
    await start(app)
    yield shop
    await app.aclose()


@pytest.fixture
def rehearsal() -> Rehearsal:
    """A backstage to set by hand."""
    return Rehearsal()


def everybody(rehearsal: Rehearsal, *, orders: int) -> None:
    """Let the shop place so many orders, and every department handle them."""
    for process in ("worker 1", *DEPARTMENTS):
        rehearsal.board.count(process, orders=orders)


async def sentence(rehearsal: Rehearsal) -> str:
    return (await Ledger(rehearsal.backstage).verdict()).sentence


async def test_the_verdict_says_that_all_orders_have_arrived(rehearsal: Rehearsal) -> None:
    assert await sentence(rehearsal) == "No orders yet."
    everybody(rehearsal, orders=1)
    assert await sentence(rehearsal) == "The one order has reached all three services."
    everybody(rehearsal, orders=16)
    assert await sentence(rehearsal) == "All 17 orders have reached all three services."


async def test_the_verdict_says_what_orders_wait_for(rehearsal: Rehearsal) -> None:
    everybody(rehearsal, orders=4)
    rehearsal.board.count("worker 1", orders=1)
    every = "Notification and Analytics and Inventory"
    assert await sentence(rehearsal) == f"1 order is on the way to {every}."
    rehearsal.processes.set(BROKER, "stopped")
    assert await sentence(rehearsal) == "1 order waits for the broker."
    rehearsal.processes.set(BROKER, "running")
    for department in ("notification", "inventory"):
        rehearsal.board.count(department, orders=1)
    rehearsal.board.count("worker 1", orders=1)
    for department in ("notification", "inventory"):
        rehearsal.board.count(department, orders=1)
    rehearsal.processes.set("analytics", "failed")
    assert await sentence(rehearsal) == "2 orders wait for Analytics."
    rehearsal.processes.set("analytics", "running")
    rehearsal.mischief.set("analytics", is_failing=True)
    assert await sentence(rehearsal) == "2 orders wait for Analytics, which fails just now."


async def test_a_department_that_reports_first_is_not_ahead(rehearsal: Rehearsal) -> None:
    rehearsal.board.count("worker 1", orders=1)
    rehearsal.board.count("analytics", orders=2)
    assert await Ledger(rehearsal.backstage).waiting("analytics") == 0


async def test_traffic_is_what_was_counted_between_two_ticks(rehearsal: Rehearsal) -> None:
    board = rehearsal.board
    traffic = Traffic(board)
    board.count("worker 1", published=5)
    board.tick()
    assert await traffic.lately() == {}
    board.count("worker 1", published=2)
    assert await traffic.lately() == {}  # the second is not over
    board.tick()
    assert (await traffic.lately())["worker 1"].published == 2
    board.count("worker 1", published=-7)  # it was started again
    board.tick()
    assert (await traffic.lately())["worker 1"].published == 0


def test_figures_fit_their_tiles() -> None:
    assert [short(each) for each in (0, 99_999, 123_456, 12_345_678)] == [
        "0",
        "99,999",
        "123k",
        "12M",
    ]
    assert [age(each) for each in (7.4, 90, 7_200)] == ["7 s", "2 min", "2 h"]
    line = path([0, 10]).split(" L")
    assert (len(line), line[0], line[-2:]) == (60, "M0 22.0", ["58 22.0", "59 2.0"])


async def test_a_visitor_pulls_the_levers(visit: Visit, shop: Shop, rehearsal: Rehearsal) -> None:
    board, processes, mischief = rehearsal.board, rehearsal.processes, rehearsal.mischief

    def page() -> None:
        backstage = rehearsal.backstage
        FlowPage(backstage, shop, Traffic(board), Ledger(backstage)).build()

    async with visit(page) as visitor:
        await until(lambda: texts(visitor).count("Running") == 2 * len(processes.states))
        press(visitor, "Stop NATS")
        await until(lambda: texts(visitor).count("Stopped") == 2)
        press(visitor, "Start NATS")
        await until(lambda: "Stopped" not in texts(visitor))
        press(visitor, "Kill Analytics")
        await until(lambda: texts(visitor).count("Down") == 2)
        press(visitor, "Let Notification fail")
        await until(lambda: "Fails on purpose" in texts(visitor))
        for label in ("Send a poison message", "Send a duplicate", "Send an unknown event"):
            press(visitor, label)
        await until(lambda: mischief.sent == ["poison", "duplicate", "unknown"])
        press(visitor, "Place an order")
        await until(lambda: "1 sold" in " ".join(texts(visitor)))  # in the terminal
        assert len(await shop.orders.ids()) == 1


async def test_a_visitor_looks_at_dead_letters(
    visit: Visit, shop: Shop, rehearsal: Rehearsal
) -> None:
    def page() -> None:
        backstage = rehearsal.backstage
        FlowPage(backstage, shop, Traffic(rehearsal.board), Ledger(backstage)).build()

    died_at = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(3):
        letter = DeadLetterView(
            str(number), "shop", "shop.order_placed.v1", f"reason {number}", "", "{}", died_at
        )
        rehearsal.mischief.die("inventory", letter)
    async with visit(page) as visitor:
        await until(lambda: "reason 2" in texts(visitor))
        press(visitor, "Drop for Inventory")
        await until(lambda: "reason 0" not in texts(visitor))
        assert "reason 1" in texts(visitor)
        press(visitor, "Requeue all")
        await until(lambda: "No dead letters. A poison message makes some." in texts(visitor))


async def test_the_feed_shows_the_kinds_that_were_chosen(
    visit: Visit, shop: Shop, rehearsal: Rehearsal
) -> None:
    board = rehearsal.board

    def page() -> None:
        backstage = rehearsal.backstage
        FlowPage(backstage, shop, Traffic(board), Ledger(backstage)).build()

    for number in range(150):
        board.happen("publish", f"sent {number}")
        board.happen("receive", f"came {number}", "analytics")
    board.happen("compute", "Stock.left")
    board.happen("publish", "twice")
    board.happen("publish", "twice")
    async with visit(page) as visitor:
        await until(lambda: texts(visitor).count("twice") == 2)
        shown = [each for each in texts(visitor) if each.startswith(("sent ", "came "))]
        assert len(shown) == 198  # and the two
        assert shown[0] == "came 149"
        assert "Stock.left" not in texts(visitor)
        press(visitor, "Received")
        await until(lambda: "came 149" not in texts(visitor))
        press(visitor, "Computes")
        await until(lambda: "Stock.left" in texts(visitor))


def press(visitor: User, name: str) -> None:
    """Click the first of the buttons that are called so."""
    assert visitor.client is not None
    for element in visitor.client.layout.descendants():
        if isinstance(element, ui.button) and name in names(element):
            UserInteraction(visitor, {element}, None).click()
            return
    raise AssertionError(f"There is no button {name!r}.")


def names(button: ui.button) -> set[str]:
    inside = {each.text for each in button.descendants() if isinstance(each, TextElement)}
    return {button.text, button.props.get("aria-label", ""), *inside}
