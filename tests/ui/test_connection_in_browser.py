"""In a real browser: what a visitor sees of a connection that is lost, and comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from .browsing import PHONE, Server, Windows

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture
def server(tmp_path: Path, chromium: str) -> Iterator[Server]:
    """The page, served by uvicorn within a FastAPI application."""
    del chromium  # no browser, no server
    server = Server(
        ["-m", "uvicorn", "tests.ui.connection_page:app", "--port", "{port}"],
        tmp_path / "server.log",
    )
    server.start()
    yield server
    server.kill()


async def seconds_left(page: Page) -> float:
    """The countdown of the first badge."""
    words = await page.get_by_text(re.compile(r"^in [\d.]+s$")).first.inner_text()
    return float(words[3:-1])


async def test_a_lost_connection_shows_counts_down_and_is_made_again_on_request(
    windows: Windows, server: Server
) -> None:
    page = await windows.open(server.url)
    dark = await windows.open(f"{server.url}/?dark=true")
    phone = await windows.open(server.url, PHONE)
    quiet, always, narrow = await page.locator(".afresh-connection").all()
    await expect(always).to_have_text(re.compile("Connected."))
    await expect(quiet).to_be_hidden()
    await windows.picture(page, "connection-connected")
    server.get("/offline")
    await expect(always).to_contain_text("Just disconnected, reconnecting...")
    await expect(quiet).to_be_hidden()
    await expect(quiet).to_be_visible()
    await expect(quiet).to_contain_text("Disconnected.")
    await expect(quiet).not_to_contain_text("1006")
    await expect(always).to_contain_text("Disconnected: The connection was closed: 1006.")
    await expect(quiet.get_by_text("Trying again")).to_be_visible()
    before = await seconds_left(page)
    await page.wait_for_timeout(400)
    after = await seconds_left(page)
    assert 0.2 <= before - after <= 0.8
    await windows.picture(page, "connection-lost")
    await windows.picture(dark, "connection-lost-dark")
    await windows.picture(phone, "connection-lost-phone")
    box = await narrow.bounding_box()
    assert box is not None
    assert box["width"] <= 170
    server.get("/online")
    assert await seconds_left(page) > 2
    await quiet.get_by_role("button", name="Reconnect").click()
    await expect(quiet).to_be_hidden(timeout=1000)
    await expect(always).to_have_text(re.compile("Just connected."))


async def test_it_gives_way_by_itself_when_the_connection_is_back(
    windows: Windows, server: Server
) -> None:
    page = await windows.open(server.url)
    badge = page.locator(".afresh-connection").first
    server.get("/offline")
    await expect(badge).to_be_visible()
    await expect(badge.get_by_text("Trying again")).to_be_visible()
    server.get("/online")
    await expect(badge).to_be_hidden(timeout=15_000)
