"""What tests of the web share: a real browser's windows, and a Node to run JavaScript with."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import playwright
import pytest
from playwright.async_api import async_playwright, expect

from tests.ui.browsing import FLAGS, Windows

from .site import Site

STATIC = Path(__file__).parents[2] / "src" / "afresh" / "web" / "static"


@pytest.fixture(scope="session")
def node() -> str:
    """The path of a Node.js: the one that Playwright brings, or any other."""
    own = Path(playwright.__file__).parent / "driver" / "node"
    path = str(own) if own.exists() else shutil.which("node")
    if path is None:
        pytest.skip("Node.js is not installed")
    return path


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
    expect.set_options(timeout=15_000)  # servers come and go here
    async with async_playwright() as engine:
        browser = await engine.chromium.launch(executable_path=chromium, args=FLAGS)
        windows = Windows(browser, artifacts)
        yield windows
        await browser.close()
    assert windows.complaints == []


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Site]:
    """A server that is there for all tests."""
    del chromium  # no browser, no server
    site = Site(tmp_path_factory.mktemp("site"))
    site.start()
    yield site
    site.kill()


@pytest.fixture
async def site(shared_site: Site) -> Site:
    """A server that no page is connected to, and whose numbers are 0."""
    await shared_site.is_followed(0)
    for name in ("a", "b", "c"):
        shared_site.change(name, 0)
    return shared_site


@pytest.fixture
def mortal_site(tmp_path: Path, chromium: str) -> Iterator[Site]:
    """A server to kill and to start again."""
    del chromium  # no browser, no server
    site = Site(tmp_path)
    site.start()
    yield site
    site.kill()
