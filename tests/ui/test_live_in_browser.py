"""In a real browser: live parts keep out of the visitor's way, and end when the window closes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from .browsing import Server, Windows
from .conftest import until

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Server]:
    """The live page, served by uvicorn within a FastAPI application."""
    del chromium  # no browser, no server
    server = Server(
        ["-m", "uvicorn", "tests.ui.live_page:app", "--port", "{port}"],
        tmp_path_factory.mktemp("live") / "server.log",
    )
    server.start()
    yield server
    server.kill()


async def tick(page: Page, server: Server) -> None:
    """Change the number, and wait until the window shows the new one."""
    number = server.get("/tick")
    await expect(page.get_by_text(f"Tick {number}", exact=True)).to_be_visible()


@pytest.mark.parametrize("label", ["Name", "Notes", "Kept"])
async def test_typing_goes_on_while_updates_arrive(
    windows: Windows, server: Server, label: str
) -> None:
    page = await windows.open(server.url)
    field = page.get_by_label(label)
    await field.click()
    sentence = "The quick brown fox jumps over the lazy dog"
    for position, character in enumerate(sentence):
        await page.keyboard.type(character)
        if position % 3 == 0:
            server.get("/tick")
    await tick(page, server)
    await expect(field).to_have_value(sentence)
    await expect(field).to_be_focused()
    for _ in range(4):
        await page.keyboard.press("ArrowLeft")
    await tick(page, server)
    await page.keyboard.type("old ")
    await tick(page, server)
    await expect(field).to_have_value("The quick brown fox jumps over the lazyold  dog")


async def test_the_server_knows_what_was_typed_between_updates(
    windows: Windows, server: Server
) -> None:
    page = await windows.open(server.url)
    await page.get_by_label("Name").fill("Ada")
    await tick(page, server)
    await page.get_by_role("button", name="Greet").click()
    await expect(page.get_by_text("Hello Ada")).to_be_visible()


async def test_a_click_under_way_counts_although_the_part_renders_meanwhile(
    windows: Windows, server: Server
) -> None:
    page = await windows.open(server.url)
    await page.get_by_role("button", name="Greet").hover()
    await page.mouse.down()
    for _ in range(3):  # then the button is where it was
        await tick(page, server)
    await page.mouse.up()
    await expect(page.get_by_text("Hello")).to_be_visible()


async def test_what_is_open_stays_open_and_what_is_scrolled_stays_scrolled(
    windows: Windows, server: Server
) -> None:
    page = await windows.open(server.url)
    await page.get_by_text("More").click()
    await expect(page.get_by_text("Inside")).to_be_visible()
    scroller = page.locator(".q-scrollarea__container")
    await scroller.evaluate("each => each.scrollTo(0, 200)")
    await page.get_by_label("Color").click()
    await expect(page.get_by_role("option", name="Blue")).to_be_visible()
    for _ in range(3):
        await tick(page, server)
    await page.get_by_role("option", name="Blue").click()
    await expect(page.locator("#app").get_by_text("Blue")).to_be_visible()
    await tick(page, server)
    await expect(page.locator("#app").get_by_text("Blue")).to_be_visible()
    await expect(page.get_by_text("Inside")).to_be_visible()
    assert await scroller.evaluate("each => each.scrollTop") == 200


async def test_an_error_shows_above_the_last_good_content(windows: Windows, server: Server) -> None:
    page = await windows.open(server.url)
    await tick(page, server)
    before = await page.get_by_text("Tick").inner_text()
    server.get("/tick?broken=true")
    await expect(page.get_by_role("alert")).to_contain_text("the database is away")
    await expect(page.get_by_text("Update failed")).to_be_visible()
    await expect(page.get_by_text(before)).to_be_visible()
    await expect(page.get_by_label("Name")).to_be_visible()
    await windows.picture(page, "error-banner")
    await tick(page, server)
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_nothing_follows_for_a_window_that_was_closed_and_a_reload_goes_on(
    windows: Windows, server: Server
) -> None:
    await until(lambda: server.get("/followers") == "0", seconds=10)
    page = await windows.open(server.url)
    await tick(page, server)
    assert server.get("/followers") == "1"
    await page.reload()
    await tick(page, server)
    await until(lambda: server.get("/followers") == "1", seconds=10)
    await page.context.close()
    await until(lambda: server.get("/followers") == "0", seconds=10)


SCRIPT = """
from nicegui import ui

from afresh import MutableState
from afresh.ui.nicegui import live

number = MutableState(1)


@live(delay=0)
async def body() -> None:
    ui.button(f"Number {number.use()}", on_click=lambda: number.set(number.value + 1))


body()
ui.run(port={port}, show=False, reload=False)
"""


async def test_a_script_without_page_functions_works_too(
    windows: Windows, tmp_path: Path, chromium: str
) -> None:
    del chromium  # no browser, no server
    script = tmp_path / "script.py"
    server = Server([str(script)], tmp_path / "server.log")
    script.write_text(SCRIPT.replace("{port}", str(server.port)))
    server.start()
    try:
        page = await windows.open(server.url)
        await page.get_by_role("button", name="Number 1").click()
        await expect(page.get_by_role("button", name="Number 2")).to_be_visible()
    finally:
        server.kill()
