"""The server, the client and the page of README, copied to files and run as it says."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import async_playwright, expect

README = Path(__file__).parent.parent / "README.md"
FILE = re.compile(
    r'^```\w+ title="(?P<name>[\w./]+)"\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL
)
PATIENCE = 30.0


class Copied:
    """A folder with the files of README, and what runs there."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.running: list[subprocess.Popen[str]] = []
        names = []
        for match in FILE.finditer(README.read_text(encoding="utf-8")):
            path = folder / match["name"]
            path.parent.mkdir(exist_ok=True)
            path.write_text(match["code"].replace("8000", str(self.port)), encoding="utf-8")
            names.append(match["name"])
        assert names == ["shop.py", "client.py", "pages/index.html"]

    def start(self, program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, program], cwd=self.folder, stdout=subprocess.PIPE, text=True
        )
        self.running.append(process)
        return process

    def serve(self) -> subprocess.Popen[str]:
        """Start the server, and wait until it listens."""
        process = self.start("shop.py")
        until(lambda: process.poll() is not None or listens(self.port))
        assert process.poll() is None
        return process

    def stop(self) -> None:
        for process in self.running:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """As Ctrl+C does."""
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE)
    if process.stdout is not None:
        process.stdout.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Copied]:
    copied = Copied(tmp_path)
    yield copied
    copied.stop()


@pytest.mark.browser
async def test_what_a_page_changes_shows_in_the_client_also_after_a_restart(
    copied: Copied, chromium: str
) -> None:
    server = copied.serve()
    client = copied.start("client.py")
    printed: list[str] = []
    assert client.stdout is not None
    reader = threading.Thread(target=lambda: printed.extend(client.stdout or ()), daemon=True)
    reader.start()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        expect.set_options(timeout=PATIENCE * 1000)
        first, second = await browser.new_page(), await browser.new_page()
        for page in (first, second):
            await page.goto(f"http://localhost:{copied.port}/")
            await expect(page.get_by_text("Tea costs 450 cents.")).to_be_visible()
        until(lambda: printed == ["750\n"])

        await first.get_by_label("Make it").fill("500")
        await first.get_by_label("Make it").press("Enter")
        await expect(second.get_by_text("Tea costs 500 cents.")).to_be_visible()
        until(lambda: printed == ["750\n", "800\n"])

        end(server)
        await expect(second.get_by_text("Disconnected.", exact=True)).to_be_visible()
        copied.serve()
        for page in (first, second):
            await expect(page.get_by_text("Tea costs 450 cents.")).to_be_visible()
            await expect(page.get_by_text("Connected.", exact=True)).to_be_visible()
        until(lambda: printed == ["750\n", "800\n", "750\n"])
        await browser.close()
