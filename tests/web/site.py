"""Pages of a test, and a server for them in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import time
import urllib.request
from pathlib import Path

from playwright.async_api import Page

from tests.ui.browsing import Server, Windows

HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Test</title>
<link rel="icon" href="data:,">
"""

MODULE = '<script type="module" src="/afresh/afresh.js"></script>'

_number = itertools.count(1)


class Site(Server):
    """The server of `tests.web.live_site`.

    Args:
        folder: where its log goes.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            [
                *("-m", "uvicorn", "tests.web.live_site:site", "--port", "{port}"),
                *("--no-access-log", "--timeout-graceful-shutdown", "0"),
            ],
            folder / "server.log",
        )

    def put(self, body: str, head: str = "") -> str:
        """Serve a page with this body, and this in its head; return its address."""
        url = f"{self.url}/pages/{next(_number)}"
        data = f"{HEAD}{head}</head><body>{body}".encode()
        urllib.request.urlopen(urllib.request.Request(url, data, method="PUT"), timeout=5).close()
        return url

    async def open(self, windows: Windows, body: str, head: str = "") -> Page:
        """Show a page with this body in a new window."""
        return await windows.open(self.put(body, head))

    def change(self, name: str, value: int) -> None:
        """Change a number from outside."""
        self.get(f"/change/{name}?to={value}")

    async def is_followed(self, times: int) -> None:
        """Wait until so many calls of pages are open on the server."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if int(count := self.get("/followers")) == times:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{count} calls are open on the server, not {times}.")
