"""The last program of the tutorial, in a server of its own and two windows of a real browser."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Error, Page, async_playwright, expect

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"
TIMEOUT = 20.0


def program() -> str:
    """The block that the page calls shop.py."""
    text = TUTORIAL.read_text(encoding="utf-8")
    match = re.search(r'^```python title="shop\.py"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """The address of the running program."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = "ui.run(reload=False)"
    assert program().count(start) == 1
    served = f'ui.run(reload=False, host="127.0.0.1", port={port}, show=False)'
    script = tmp_path / "shop.py"
    script.write_text(program().replace(start, served), encoding="utf-8")
    # NiceGUI behaves differently when it thinks that it is tested itself.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NICEGUI_", "PYTEST_"))}
    with subprocess.Popen(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=environment | {"NICEGUI_STORAGE_PATH": str(tmp_path / "storage")},
        stdout=subprocess.DEVNULL,
    ) as process:
        yield f"http://127.0.0.1:{port}/"
        process.terminate()
        process.wait(TIMEOUT)


async def open_when_it_listens(page: Page, address: str) -> None:
    """The server takes a moment to start."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                await page.goto(address)
            except Error as error:
                if "ERR_CONNECTION_REFUSED" not in error.message:
                    raise
                await asyncio.sleep(0.2)
            else:
                return


@pytest.mark.browser
async def test_an_order_of_one_visitor_shows_in_the_window_of_another(
    shop: str, chromium: str
) -> None:
    """As the tutorial says: no reload, and an error turns up as a notification."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        alice, bob = await browser.new_page(), await browser.new_page()
        await open_when_it_listens(alice, shop)
        await bob.goto(f"{shop}?user=bob")
        expect.set_options(timeout=TIMEOUT * 1000)
        await expect(bob.get_by_text("cake: 2 left")).to_be_visible()
        await expect(alice.get_by_text("alice ordered: nothing yet")).to_be_visible()

        await alice.get_by_role("button", name="Order cake").click()
        await expect(bob.get_by_text("cake: 1 left")).to_be_visible()
        await expect(alice.get_by_text("alice ordered: cake")).to_be_visible()
        await expect(bob.get_by_text("bob ordered: nothing yet")).to_be_visible()

        await bob.get_by_role("button", name="Order cake").click()
        await expect(bob.get_by_text("bob ordered: cake")).to_be_visible()
        for page in (alice, bob):
            await expect(page.get_by_text("tea: 5 left")).to_be_visible()
            await expect(page.get_by_role("button", name="Order cake")).to_have_count(0)
        await browser.close()
