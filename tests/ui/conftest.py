"""What tests of pages share: simulated visitors, and waiting for a page to get somewhere.

NiceGUI's own pytest plugin is left alone: it would reach into every other test of the run.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from nicegui import app, core
from nicegui.elements.mixins.text_element import TextElement
from nicegui.storage import Storage
from nicegui.testing import User, user_simulation
from playwright.async_api import async_playwright, expect

from afresh import ComputeService, compute_method
from afresh.ui.nicegui import page_defaults

from .browsing import FLAGS, Windows

Visit = Callable[[Callable[[], object]], AbstractAsyncContextManager[User]]


@pytest.fixture(scope="session", autouse=True)
def _storage(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What visitors store is kept apart for every process."""
    Storage.path = tmp_path_factory.mktemp("nicegui")
    app.storage = Storage()


@pytest.fixture
def visit() -> Visit:
    """How to open a page that a function builds: `async with visit(page) as user`."""

    @asynccontextmanager
    async def visit(page: Callable[[], object]) -> AsyncIterator[User]:
        def root() -> object:
            result = page()
            return result if asyncio.iscoroutine(result) else None  # do not wait for live parts

        async with user_simulation(root) as user:
            await user.open("/")
            yield user

    return visit


def another_user() -> User:
    """Another visitor of the site that is open."""
    transport = httpx.ASGITransport(core.app)
    return User(httpx.AsyncClient(transport=transport, base_url="http://test"))


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Let everything else run until a condition holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError("It did not come to be in time.")
        await asyncio.sleep(0.005)


def texts(user: User) -> list[str]:
    """The texts that a visitor sees, from top to bottom."""
    assert user.client is not None
    return [
        element.text
        for element in user.client.layout.descendants()
        if isinstance(element, TextElement) and element.text
    ]


def strays(user: User) -> set[int]:
    """The numbers of elements that the server keeps without showing them."""
    assert user.client is not None
    shown = {each.id for each in user.client.layout.descendants(include_self=True)}
    return set(user.client.elements) - shown


async def sees(user: User, *expected: str) -> None:
    """Wait until these, and no others, are the texts that a visitor sees."""
    try:
        await until(lambda: texts(user) == list(expected))
    except AssertionError:
        assert texts(user) == list(expected)


class Numbers(ComputeService):
    """Numbers by name, which a test changes and lets fail."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.broken = False
        self.computed = 0

    @compute_method
    async def get(self, name: str) -> int:
        self.computed += 1
        await asyncio.sleep(0)
        if self.broken:
            raise ValueError("the database is away")
        return self.values.get(name, 0)

    @compute_method
    async def names(self) -> tuple[str, ...]:
        return tuple(self.values)

    def set(self, name: str, value: int) -> None:
        is_new = name not in self.values
        self.values[name] = value
        self.get.invalidate(name)
        if is_new:
            self.names.invalidate()

    def break_down(self, broken: bool = True) -> None:
        self.broken = broken
        for name in {*self.values, "a"}:
            self.get.invalidate(name)


@pytest.fixture
def numbers() -> Numbers:
    """A service to read on pages."""
    return Numbers()


@pytest.fixture(autouse=True)
def _little_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_defaults, "update_delay", 0.0)


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Where pictures go: the directory that AFRESH_ARTIFACTS names, or a temporary one."""
    named = os.environ.get("AFRESH_ARTIFACTS")
    path = Path(named).absolute() if named else tmp_path
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
async def windows(chromium: str, artifacts: Path) -> AsyncIterator[Windows]:
    """Windows of a real browser; at the end, none of them may have complained."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        windows = Windows(browser, artifacts)
        expect.set_options(timeout=20_000)  # busy machines need their time
        yield windows
        await browser.close()
    assert windows.complaints == []
