"""The shop by several workers, in a real browser: windows in step, whoever serves them and dies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.examples.cluster import Cluster
from tests.ui.browsing import PHONE, Windows

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture
def cluster(tmp_path: Path, chromium: str, postgres_database: str) -> Iterator[Cluster]:
    """Two workers, and the Python page, on a database of their own."""
    del chromium  # no browser, no cluster
    cluster = Cluster(tmp_path, postgres_database, page=True)
    cluster.start()
    yield cluster
    cluster.stop()


async def worker_of(page: Page) -> int:
    """The process that serves a window, by what the window says."""
    served_by = page.get_by_text(re.compile(r"^Served by worker \d+$"))
    await expect(served_by).to_be_visible()
    return int((await served_by.inner_text()).split()[-1])


async def order(page: Page, product: str) -> None:
    """Put one piece into the basket, and order it."""
    await page.get_by_label(f"Add {product}").click()
    await page.get_by_role("button", name="Place order").click()
    await expect(page.get_by_text("Thank you!").first).to_be_visible()


async def test_windows_of_different_workers_show_the_same(
    cluster: Cluster, windows: Windows
) -> None:
    first = await windows.open(cluster.url)
    second = await windows.open(cluster.url)
    while await worker_of(second) == await worker_of(first):
        await second.reload()
    python = await windows.open(cluster.page_url, PHONE)
    for page in (second, python):
        await expect(page.get_by_text("No orders yet")).to_be_visible()
        await page.evaluate("window.notReloaded = true")

    await order(first, "Lemon drizzle cake")
    for page in (first, second, python):
        await expect(page.get_by_text("Order #1", exact=True)).to_be_visible()
        await expect(page.locator("article").get_by_text("Only 2 left")).to_be_visible()
        await expect(page.get_by_text("Packed", exact=True)).to_be_visible()
    await windows.picture(second, "cluster-plain")
    await windows.picture(python, "cluster-python")

    windows.forgiven += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "WebSocket connection"]
    killed = await worker_of(second)
    cluster.kill(killed)
    await expect(second.get_by_text(f"Served by worker {killed}")).not_to_be_visible()
    assert await worker_of(second) in cluster.pids - {killed}
    await order(second, "Free-range eggs")
    for page in (first, second, python):
        await expect(page.get_by_text("Order #2", exact=True)).to_be_visible()
        await expect(page.locator("article").get_by_text("29 in stock")).to_be_visible()
    for page in (second, python):
        assert await page.evaluate("window.notReloaded")

    assert cluster.stop() == 0  # while the windows are open
    assert "Traceback" not in cluster.log
