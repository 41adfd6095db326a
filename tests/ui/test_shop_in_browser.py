"""The shop in a real browser: two windows in step, a restart survived, fit for a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from .browsing import PHONE, Server, Windows

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture
def server(tmp_path: Path, chromium: str) -> Iterator[Server]:
    """The shop, with a database of its own."""
    del chromium  # no browser, no server
    server = Server(
        ["-m", "examples.shop", "--alone", "--port", "{port}", "--no-browser"],
        tmp_path / "server.log",
    )
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
    windows: Windows, server: Server
) -> None:
    first = await windows.open(f"{server.url}/?user=alice")
    second = await windows.open(f"{server.url}/?user=alice")
    stranger = await windows.open(f"{server.url}/?user=bob")
    await expect(second.get_by_text("No orders yet")).to_be_visible()
    await windows.picture(first, "shop-empty")
    await second.evaluate("window.notReloaded = true")

    await order(first, "Lemon drizzle cake", "Oat cookies")

    for window in (first, second):
        await expect(window.get_by_text("Order #1", exact=True)).to_be_visible()
    for window in (first, second, stranger):
        await expect(stock(window, "Lemon drizzle cake", "Only 2 left")).to_be_visible()
        await expect(window.locator(".sales").get_by_text("€18.20").first).to_be_visible()
    await expect(stranger.get_by_text("No orders yet")).to_be_visible()
    for window in (first, second):
        await expect(window.get_by_text("Packed", exact=True)).to_be_visible()
    assert await second.evaluate("window.notReloaded")
    await windows.picture(second, "shop-ordered")


async def test_a_note_is_kept_while_others_empty_the_shelves(
    windows: Windows, server: Server
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
    await expect(alice.locator("#basket").get_by_text("Sold out")).to_be_visible()
    await expect(note).to_have_value("Please ring twice")
    await expect(note).to_be_focused()
    await windows.picture(alice, "shop-sold-out")
    await alice.get_by_role("button", name="Place order").click()
    await expect(alice.get_by_text("Sorry, Lemon drizzle cake: sold out")).to_be_visible()
    await windows.picture(alice, "shop-refused")
    await bob.get_by_role("button", name="Restock").click()
    await expect(stock(alice, "Lemon drizzle cake", "10 in stock")).to_be_visible()
    await alice.get_by_role("button", name="Place order").click()
    await expect(alice.get_by_text("“Please ring twice”")).to_be_visible()


async def test_a_page_recovers_when_the_server_was_killed_and_restarted(
    windows: Windows, server: Server
) -> None:
    windows.forgiven += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "WebSocket connection"]
    alice = await windows.open(f"{server.url}/?user=alice")
    bob = await windows.open(f"{server.url}/?user=bob")
    await order(alice, "Free-range eggs")
    for window in (alice, bob):
        await window.evaluate("window.isOld = true")
    server.kill()
    await expect(alice.get_by_text("Connection lost")).to_be_visible()
    await windows.picture(alice, "shop-disconnected")
    server.start()
    for window in (alice, bob):
        await window.wait_for_function("!window.isOld", timeout=30_000)
    await expect(alice.get_by_text("Order #1", exact=True)).to_be_visible()
    await expect(alice.get_by_text("Connection lost")).not_to_be_visible()
    await order(bob, "Free-range eggs")
    await expect(stock(alice, "Free-range eggs", "28 in stock")).to_be_visible()


async def test_it_fits_a_phone(windows: Windows, server: Server) -> None:
    page = await windows.open(f"{server.url}/?user=carol", PHONE)
    await page.get_by_label("Add Butter croissants").click()
    await page.get_by_label("One Butter croissants more").click()
    await expect(page.locator(".dock").get_by_text("2 items")).to_be_visible()
    await windows.picture(page, "shop-phone-products")
    await page.get_by_role("button", name="View basket").click()
    await expect(page.get_by_role("button", name="Place order")).to_be_in_viewport()
    await windows.picture(page, "shop-phone-basket")
    await page.get_by_role("button", name="Place order").click()
    await expect(page.get_by_text("Order #1", exact=True)).to_be_visible()
    await expect(page.locator(".dock")).to_have_count(0)
    await page.locator(".sales").scroll_into_view_if_needed()
    await windows.picture(page, "shop-phone-sales")
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE[0]


async def test_the_user_is_switched_in_the_header(windows: Windows, server: Server) -> None:
    page = await windows.open(server.url)
    await order(page, "Wildflower honey")
    await page.get_by_role("button", name="Switch user").click()
    await windows.picture(page, "shop-users")
    await page.locator(".q-menu").get_by_text("Bob").click()
    await expect(page.get_by_text("No orders yet")).to_be_visible()
    assert page.url.endswith("?user=bob")
