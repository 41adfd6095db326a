"""The shop's plain page: two windows in step, a restart survived, fit for phones and the night."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.ui.browsing import PHONE, Server, Windows

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture
def server(tmp_path: Path, chromium: str) -> Iterator[Server]:
    """The shop, with a database of its own."""
    del chromium  # no browser, no server
    arguments = ["-m", "examples.shop", "server", "--port", "{port}"]
    server = Server(arguments, tmp_path / "server.log")
    server.start()
    yield server
    server.kill()


async def order(page: Page, *products: str) -> None:
    """Put products into the basket and place the order."""
    for product in products:
        await page.get_by_label(f"Add {product}").click()
        await expect(page.get_by_label(f"Remove {product}")).to_be_visible()
    await page.get_by_role("button", name="Place order").click()
    await expect(page.get_by_text("Thank you!").first).to_be_visible()


def stock(page: Page, product: str, text: str) -> Locator:
    """The part of a product's card that says how much is left."""
    return page.locator("article", has_text=product).get_by_text(text, exact=True)


async def test_an_order_placed_in_one_window_shows_in_the_other(
    server: Server, windows: Windows
) -> None:
    first = await windows.open(f"{server.url}/?user=alice")
    second = await windows.open(f"{server.url}/?user=alice")
    stranger = await windows.open(f"{server.url}/?user=bob")
    await expect(second.get_by_text("No orders yet")).to_be_visible()
    await expect(second.get_by_text("Nothing sold yet")).to_be_visible()
    await windows.picture(first, "plain-empty")

    await order(first, "Lemon drizzle cake", "Oat cookies")

    for window in (first, second):
        await expect(window.get_by_text("Order #1", exact=True)).to_be_visible()
        await expect(window.locator("#orders")).to_contain_text("€18.20")
        await expect(window.get_by_text("Nothing in it yet")).to_be_visible()
    for window in (first, second, stranger):
        await expect(stock(window, "Lemon drizzle cake", "Only 2 left")).to_be_visible()
        await expect(window.locator("#total")).to_contain_text("€18.20")
    await expect(stranger.get_by_text("No orders yet")).to_be_visible()
    for window in (first, second):
        await expect(window.get_by_text("Packed", exact=True)).to_be_visible()
    await windows.picture(second, "plain-ordered")


async def test_the_basket_is_filled_and_emptied_step_by_step(
    server: Server, windows: Windows
) -> None:
    page = await windows.open(server.url)
    other = await windows.open(server.url)
    await page.get_by_label("Add Lemon drizzle cake").click()
    more, less = (page.get_by_label(f"One Lemon drizzle cake {way}") for way in ("more", "less"))
    await more.dblclick()
    await expect(more).to_be_disabled()  # there are three
    await expect(other.locator("#lines")).to_contain_text("€42.00")
    await expect(page.locator("#lines")).to_contain_text("€42.00")
    await less.click()
    await expect(other.locator("#lines")).to_contain_text("€28.00")
    await page.get_by_label("Remove Lemon drizzle cake").click()
    await expect(page.get_by_text("Nothing in it yet")).to_be_visible()
    await expect(page.get_by_label("Add Lemon drizzle cake")).to_be_visible()


async def test_a_note_is_kept_while_others_empty_the_shelves(
    server: Server, windows: Windows
) -> None:
    alice = await windows.open(f"{server.url}/?user=alice")
    bob = await windows.open(f"{server.url}/?user=bob")
    await alice.get_by_label("Add Lemon drizzle cake").click()
    note = alice.get_by_label("Note")
    await note.click()
    for number, word in enumerate(["Please", " ring", " twice"], 1):
        await alice.keyboard.type(word, delay=20)
        await order(bob, "Lemon drizzle cake")
        left = f"Only {3 - number} left" if number < 3 else "Sold out"
        await expect(stock(alice, "Lemon drizzle cake", left)).to_be_visible()
    await expect(alice.locator("#lines").get_by_text("Sold out")).to_be_visible()
    await expect(note).to_have_value("Please ring twice")
    await expect(note).to_be_focused()
    await alice.get_by_role("button", name="Place order").click()
    await expect(alice.get_by_text("Sorry, Lemon drizzle cake: sold out")).to_be_visible()
    await windows.picture(alice, "plain-refused")
    await bob.get_by_role("button", name="Restock").click()
    await expect(stock(alice, "Lemon drizzle cake", "10 in stock")).to_be_visible()
    await alice.get_by_role("button", name="Place order").click()
    await expect(alice.get_by_text("Please ring twice")).to_be_visible()
    await expect(note).to_have_value("")


async def test_a_page_says_that_it_reconnects_and_catches_up_by_itself(
    server: Server, windows: Windows
) -> None:
    windows.forgiven += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "WebSocket connection"]
    alice = await windows.open(f"{server.url}/?user=alice")
    bob = await windows.open(f"{server.url}/?user=bob")
    await order(alice, "Free-range eggs")
    await expect(alice.locator(".pill")).to_have_text("Connected.", use_inner_text=True)
    for window in (alice, bob):
        await window.evaluate("window.notReloaded = true")
    server.kill()
    await expect(alice.locator(".pill")).to_contain_text("reconnecting")
    await expect(alice.locator(".banner")).to_contain_text("Disconnected.", timeout=20_000)
    await expect(alice.get_by_role("button", name="Reconnect")).to_be_visible()
    await expect(alice.get_by_text("Order #1", exact=True)).to_be_visible()
    await windows.picture(alice, "plain-disconnected")
    server.start()
    for window in (alice, bob):
        await expect(window.locator(".pill")).to_contain_text("onnected.", timeout=30_000)
        await expect(window.locator(".banner")).to_be_hidden(timeout=15_000)
    await order(bob, "Free-range eggs")
    await expect(stock(alice, "Free-range eggs", "28 in stock")).to_be_visible()
    for window in (alice, bob):
        assert await window.evaluate("window.notReloaded")


async def test_it_fits_a_phone(server: Server, windows: Windows) -> None:
    page = await windows.open(f"{server.url}/?user=carol", PHONE)
    await page.get_by_label("Add Butter croissants").click()
    await page.get_by_label("One Butter croissants more").click()
    await expect(page.locator(".dock").get_by_text("2 items")).to_be_visible()
    await windows.picture(page, "plain-phone-products")
    await page.get_by_role("link", name="View basket").click()
    await expect(page.get_by_role("button", name="Place order")).to_be_in_viewport()
    await windows.picture(page, "plain-phone-basket")
    await page.get_by_role("button", name="Place order").click()
    await expect(page.get_by_text("Order #1", exact=True)).to_be_visible()
    await expect(page.locator(".dock")).to_be_hidden()
    await page.locator("#sales").scroll_into_view_if_needed()
    await windows.picture(page, "plain-phone-sales")
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE[0]


async def test_it_is_dark_where_the_visitor_likes_that(server: Server, windows: Windows) -> None:
    page = await windows.open(server.url)
    await page.emulate_media(color_scheme="dark")
    await order(page, "Wildflower honey", "Seasonal bouquet", "First flush Darjeeling")
    await page.get_by_label("Add Espresso beans").click()
    await expect(page.locator("#lines")).to_contain_text("Espresso beans")
    await windows.picture(page, "plain-dark")
    brightness = await page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + +b, 0)"
    )
    assert brightness < 150


async def test_the_user_is_switched_in_the_header(server: Server, windows: Windows) -> None:
    page = await windows.open(server.url)
    await order(page, "Wildflower honey")
    await page.get_by_label("Switch user").select_option("Bob")
    await expect(page.get_by_text("No orders yet")).to_be_visible()
    assert page.url.endswith("?user=bob")
    await page.goto(f"{server.url}/?user=toString")
    await expect(page.get_by_text("Order #1", exact=True)).to_be_visible()  # Alice's
