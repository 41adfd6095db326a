"""The whole demo in a real browser: whatever breaks, the reader can see that nothing gets lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.async_api import Locator, Page, expect

from .browsing import PHONE, Server, Windows, free_port

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

DESK = (1600, 1000)


class Demo(Server):
    """The shop, its broker and its three departments, each in a process of its own."""

    def __init__(self, folder: pytest.TempPathFactory) -> None:
        self.notification, self.analytics, self.inventory = (free_port() for _ in range(3))
        ports = [str(each) for each in (self.notification, self.analytics, self.inventory)]
        super().__init__(
            [
                *("-m", "examples.shop", "--port", "{port}", "--no-browser"),
                *("--department-ports", *ports),
            ],
            folder.mktemp("demo") / "demo.log",
        )

    def of(self, department: str) -> str:
        """The address of a department's page."""
        return f"http://127.0.0.1:{getattr(self, department)}/"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Demo]:
    """One demo for all tests here; each leaves it running, and counts from what it finds."""
    del chromium  # no browser, no demo
    demo = Demo(tmp_path_factory)
    demo.start()
    yield demo
    demo.stop()


async def open_flow(windows: Windows, demo: Demo, size: tuple[int, int] = DESK) -> Page:
    """The flow page, once all that it shows is running."""
    page = await windows.open(f"{demo.url}/flow", size)
    for name in ("broker", "notification", "analytics", "inventory"):
        await expect(machine(page, name).get_by_text("Running", exact=True)).to_be_visible()
    return page


def machine(page: Page, name: str) -> Locator:
    """What the levers say of a process."""
    order = ["broker", "notification", "analytics", "inventory"]
    return page.locator(".machine").nth(order.index(name))


def press(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def figure(page: Page, title: str) -> Locator:
    """The number of a tile."""
    return page.locator(".tile", has_text=title).locator(".number")


async def number(of: Locator) -> int:
    return int((await of.inner_text()).replace(",", ""))


async def placed(page: Page) -> int:
    return await number(page.locator(".share", has_text="Orders placed").locator(".number"))


def all_arrived(orders: int) -> str:
    if orders == 1:
        return "The one order has reached all three services."
    return f"All {orders} orders have reached all three services."


async def order_cookies(page: Page, shop: Page, before: int) -> int:
    """Order something in the shop, and wait until the flow page has heard of it."""
    await shop.get_by_label("Add Oat cookies").click()
    await expect(shop.get_by_label("Remove Oat cookies")).to_be_visible()
    await shop.get_by_role("button", name="Place order").click()
    await expect(shop.locator("#basket").get_by_text("Nothing in it yet")).to_be_visible()
    share = page.locator(".share", has_text="Orders placed").locator(".number")
    await expect(share).to_have_text(str(before + 1))
    return before + 1


async def test_an_order_is_seen_on_its_way_to_all_three_departments(
    windows: Windows, demo: Demo
) -> None:
    page = await open_flow(windows, demo)
    await expect(page.get_by_text("No orders yet.")).to_be_visible()
    notices = await windows.open(demo.of("notification"))
    await expect(notices.get_by_text("Nothing to tell yet")).to_be_visible()
    analytics = await windows.open(demo.of("analytics"))
    inventory = await windows.open(demo.of("inventory"))

    moving = page.locator(".edge.fan .track.flowing")
    await press(page, "Place an order").click()
    await expect(moving).to_have_count(3)
    await expect(page.get_by_text(all_arrived(1))).to_be_visible()
    await expect(notices.get_by_text("Thank you for order #1")).to_be_visible()
    await expect(analytics.locator(".tile", has_text="Orders").get_by_text("1")).to_be_visible()
    await expect(inventory.get_by_text("Reserved for order #1")).to_be_visible()
    await expect(moving).to_have_count(0)

    log = page.get_by_role("log", name="Events")
    await expect(log.get_by_text("OrderPlaced #1")).not_to_have_count(0)
    await expect(log.locator(".kind.receive")).not_to_have_count(0)
    await press(page, "Received").click()
    await expect(log.locator(".kind.receive")).to_have_count(0)
    await expect(log.locator(".kind.command")).not_to_have_count(0)


async def test_orders_wait_while_the_broker_is_stopped(windows: Windows, demo: Demo) -> None:
    page = await open_flow(windows, demo)
    shop = await windows.open(f"{demo.url}/?user=bob")
    orders = await placed(page)
    await press(page, "Stop NATS").click()
    await expect(machine(page, "broker").get_by_text("Stopped")).to_be_visible()
    await expect(page.locator(".edge.into-broker .track.blocked")).to_have_count(1)

    orders = await order_cookies(page, shop, orders)
    orders = await order_cookies(page, shop, orders)
    await expect(page.get_by_text("2 orders wait for the broker.")).to_be_visible()
    await expect(
        page.locator(".share", has_text="Inventory").get_by_text("2 waiting")
    ).to_be_visible()
    await expect(figure(page, "Unsent")).not_to_have_text("0")
    await windows.picture(page, "flow-broker-stopped")

    await press(page, "Start NATS").click()
    await expect(page.get_by_text(all_arrived(orders))).to_be_visible()
    await expect(figure(page, "Unsent")).to_have_text("0")


async def test_a_killed_department_catches_up(windows: Windows, demo: Demo) -> None:
    windows.forgiven += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "WebSocket connection"]
    page = await open_flow(windows, demo)
    shop = await windows.open(f"{demo.url}/?user=alice")
    notices = await windows.open(demo.of("notification"))
    orders = await placed(page)
    await press(page, "Kill Notification").click()
    await expect(machine(page, "notification").get_by_text("Down")).to_be_visible()
    await expect(page.locator(".departments .node").first.get_by_text("Down")).to_be_visible()

    orders = await order_cookies(page, shop, orders)
    await expect(page.get_by_text("1 order waits for Notification.")).to_be_visible()
    await expect(page.locator(".share", has_text="Analytics").get_by_text("all")).to_be_visible()
    await expect(notices.get_by_text("What you see may be out of date.")).not_to_have_count(1)
    await windows.picture(page, "flow-notification-killed")

    await press(page, "Start Notification").click()
    await expect(page.get_by_text(all_arrived(orders))).to_be_visible()
    await expect(notices.get_by_text(f"Thank you for order #{orders}")).to_be_visible()


async def test_a_poison_message_is_put_aside_and_can_be_dropped(
    windows: Windows, demo: Demo
) -> None:
    page = await open_flow(windows, demo)
    dead = await number(figure(page, "Dead letters"))
    await press(page, "Send a poison message").click()
    rows = page.locator(".letters-table tbody tr")
    await expect(rows).to_have_count(3)
    await expect(figure(page, "Dead letters")).to_have_text(str(dead + 3))
    await expect(page.locator(".node.dead").get_by_text("to look at")).to_be_visible()
    await windows.picture(page, "flow-poison")

    await press(page, "Drop for Analytics").click()
    await expect(rows).to_have_count(2)
    await press(page, "Drop all").click()
    await expect(page.get_by_text("No dead letters.")).to_be_visible()


async def test_a_duplicate_has_no_second_effect(windows: Windows, demo: Demo) -> None:
    page = await open_flow(windows, demo)
    notices = await windows.open(demo.of("notification"))
    orders = await placed(page)
    await press(page, "Place an order").click()
    orders += 1
    await expect(page.get_by_text(all_arrived(orders))).to_be_visible()
    await expect(notices.get_by_text(f"Order #{orders} is on its way")).to_be_visible()
    in_all = notices.locator(".head .chip")
    sent = await in_all.inner_text()
    duplicates = await number(figure(page, "Duplicates"))

    await press(page, "Send a duplicate").click()
    await expect(figure(page, "Duplicates")).to_have_text(str(duplicates + 3))
    await expect(notices.get_by_text(f"Thank you for order #{orders}")).to_have_count(1)
    await expect(in_all).to_have_text(sent)
    await expect(page.get_by_text(all_arrived(orders))).to_be_visible()


async def test_a_failing_department_tries_again(windows: Windows, demo: Demo) -> None:
    page = await open_flow(windows, demo)
    orders = await placed(page)
    retried = await number(figure(page, "Retried"))
    await press(page, "Let Notification fail").click()
    await expect(page.locator(".node.failing").get_by_text("Fails on purpose")).to_be_visible()
    await press(page, "Place an order").click()
    await expect(page.get_by_text("1 order waits for Notification, which fails")).to_be_visible()
    await expect(figure(page, "Retried")).not_to_have_text(str(retried))
    await windows.picture(page, "flow-failing")
    await press(page, "Let Notification work again").click()
    await expect(page.get_by_text(all_arrived(orders + 1))).to_be_visible()


async def test_all_pages_fit_a_phone(windows: Windows, demo: Demo) -> None:
    for url in (f"{demo.url}/flow", demo.url, f"{demo.url}/plain/"):
        page = await windows.open(url, PHONE)
        await expect(page.get_by_role("link", name="Behind the shop")).to_be_visible()
        await page.wait_for_timeout(500)
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], url
        await page.context.close()
    for department in ("notification", "analytics", "inventory"):
        page = await windows.open(demo.of(department), PHONE)
        await expect(page.get_by_role("heading", name=department.capitalize())).to_be_visible()
        await expect(page.get_by_role("link", name="Behind the shop")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], department
        await page.context.close()


async def test_the_whole_picture_shows_all_clients_and_services(
    windows: Windows, demo: Demo
) -> None:
    page = await open_flow(windows, demo)
    await page.locator(".windows").scroll_into_view_if_needed()
    for title in ("Python page", "Plain page", "Notification", "Analytics", "Inventory"):
        frame = page.frame_locator(f'iframe[title="{title}"]')
        heading = title if title in ("Notification", "Analytics", "Inventory") else "Corner Market"
        await expect(frame.get_by_text(heading, exact=True).first).to_be_visible()
    await expect(page.locator(".screen").get_by_text("Orders of Alice")).to_be_visible()
