"""Servers to browse, and browser windows to browse them with."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.async_api import Browser, ConsoleMessage, Page

ROOT = Path(__file__).parent.parent.parent
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = (1440, 900)
PHONE = (390, 844)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server in a process of its own.

    Args:
        arguments: what Python runs; `{port}` stands for the port to listen on.
        log: where the server's output goes.
    """

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = [each.format(port=self.port) for each in arguments]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        paths = [ROOT / "src", ROOT / "examples", ROOT]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
        environment.pop("NICEGUI_USER_SIMULATION", None)
        environment.pop("PYTEST_CURRENT_TEST", None)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments],
                cwd=self._log.parent,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"The server did not start:\n{self._log.read_text()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Have it end in order, together with the processes that it started."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End it without notice, as a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def get(self, path: str) -> str:
        """What it answers to a request."""
        with urllib.request.urlopen(self.url + path, timeout=5) as response:
            text: str = response.read().decode()
            return text

    def _answers(self) -> bool:
        # Not by asking for a page: nobody would ever connect to that one.
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Windows:
    """Browser windows, each with cookies of its own, and what went wrong in them."""

    def __init__(self, browser: Browser, artifacts: Path) -> None:
        self._browser = browser
        self._artifacts = artifacts
        self.complaints: list[str] = []
        self.forgiven: list[str] = []

    async def open(self, url: str, size: tuple[int, int] = DESKTOP) -> Page:
        """Open a window on a page; a narrow one is a phone's."""
        width, height = size
        is_phone = width < 600
        context = await self._browser.new_context(
            viewport={"width": width, "height": height},
            has_touch=is_phone,
            is_mobile=is_phone,
            device_scale_factor=2 if is_phone else 1,
        )
        page = await context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        await page.goto(url)
        return page

    async def picture(self, page: Page, name: str) -> None:
        """Keep a picture of what a window shows, as an artefact of the test."""
        await page.wait_for_timeout(700)  # so that fonts are there and animations are over
        await page.screenshot(path=self._artifacts / f"{name}.png")

    def _heard(self, message: ConsoleMessage) -> None:
        words = f"{message.type}: {message.text}"
        if message.type in {"error", "warning"} and not any(
            re.search(pattern, words) for pattern in self.forgiven
        ):
            self.complaints.append(words)
