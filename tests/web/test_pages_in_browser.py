"""`afresh.js` in a real browser, with a real server: live, and over restarts."""

from __future__ import annotations

import os

import pytest
from playwright.async_api import Page, expect

from tests.ui.browsing import Windows
from tests.ui.conftest import until

from .site import Site

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SCRIPT = """
<p id="value">?</p><p id="state">?</p>
<script type="module">
  import { connect } from "/afresh/afresh.js"
  window.hub = connect()
  window.numbers = hub.service("Numbers")
  window.values = []
  window.states = []
  numbers.get("a").subscribe(value => {
    values.push(value)
    document.getElementById("value").textContent = `a is ${value}`
  })
  hub.onState(({ text }) => {
    if (states.at(-1) !== text) states.push(text)
    document.getElementById("state").textContent = text
  })
</script>
"""


async def test_a_change_shows_in_all_windows(site: Site, windows: Windows) -> None:
    first = await site.open(windows, SCRIPT)
    second = await site.open(windows, SCRIPT)
    for window in (first, second):
        await expect(window.get_by_text("a is 0")).to_be_visible()
    site.change("a", 5)
    for window in (first, second):
        await expect(window.get_by_text("a is 5")).to_be_visible()
    assert await second.evaluate("numbers.set('a', 7)") == 7
    for window in (first, second):
        await expect(window.get_by_text("a is 7")).to_be_visible()
    assert await first.evaluate("values") == [0, 5, 7]


async def test_own_changes_show_without_delay(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT.replace('get("a")', 'get("a").with({ delay: 60_000 })'))
    await expect(page.get_by_text("a is 0")).to_be_visible()
    await page.evaluate("numbers.set('a', 1)")
    await expect(page.get_by_text("a is 1")).to_be_visible()


async def test_calls_take_and_give_values_and_errors(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    assert await page.evaluate("numbers.set('b')") == 1  # with the default of the second argument
    assert await page.evaluate("numbers.item(1)") == {
        "id": 1,
        "name": "<b>one</b>",
        "tags": ["x", "y"],
    }
    assert await page.evaluate(
        "numbers.fail('no more').catch(({ message, typeName }) => [message, typeName])"
    ) == ["no more", "OutOfNumbers"]
    message, name = await page.evaluate(
        "numbers.item(99).catch(({ message, typeName }) => [message, typeName])"
    )
    assert "99" not in message  # what was not meant for the page stays on the server
    assert name
    assert "Endpoint not found" in await page.evaluate(
        "numbers.unheard_of().catch(({ message }) => message)"
    )
    assert "int" in await page.evaluate("numbers.set('a', 'x').catch(({ message }) => message)")


async def test_an_error_of_what_is_followed_is_told(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    assert await page.evaluate(
        """new Promise(resolve => numbers.get("broken").subscribe(() => 0, {
          onError: ({ message, typeName }) => resolve([message, typeName])
        }))"""
    ) == ["there is none", "OutOfNumbers"]


async def test_a_loop_over_a_value(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    await page.evaluate(
        """() => { window.seen = []; window.loop = (async () => {
          for await (const value of numbers.get("a")) {
            seen.push(value)
            if (value === 2) break
          }
        })() }"""
    )
    await expect(page.get_by_text("a is 0")).to_be_visible()
    site.change("a", 1)
    await page.wait_for_function("seen.length === 2")
    site.change("a", 2)
    await page.evaluate("loop")
    assert await page.evaluate("seen") == [0, 1, 2]


async def test_streams_are_read_to_the_end_or_left(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    read = """async up_to => {
      const all = []
      for await (const each of hub.stream("Numbers", "count", up_to)) all.push(each)
      return all
    }"""
    for up_to in (0, 1, 1000):
        assert await page.evaluate(read, up_to) == list(range(up_to))
    assert (
        await page.evaluate(
            """async () => {
              for await (const each of numbers.count(1_000_000, 0.001).stream())
                if (each === 100) return each
            }"""
        )
        == 100
    )


async def test_a_stream_goes_on_after_the_connection_was_cut(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    await page.evaluate(
        """() => { window.all = []; window.reading = (async () => {
          for await (const each of numbers.count(400, 0.005).stream()) all.push(each)
        })() }"""
    )
    for _ in range(3):
        length = await page.evaluate("all.length")
        await page.wait_for_function("length => all.length > length + 20", arg=length)
        site.get("/cut")
    await page.evaluate("reading")
    assert await page.evaluate("all") == list(range(400))


async def test_a_call_survives_a_cut_and_runs_once(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    await expect(page.get_by_text("a is 0")).to_be_visible()
    await page.evaluate("() => { window.call = numbers.slow('cut', 1.5) }")
    await site.is_followed(2)
    site.get("/cut")
    await page.wait_for_function("states.includes('Just disconnected, reconnecting...')")
    assert await page.evaluate("call") == 1
    site.change("a", 1)  # followed as before
    await expect(page.get_by_text("a is 1")).to_be_visible()


async def test_what_is_sent_without_waiting_arrives(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    await expect(page.get_by_text("a is 0")).to_be_visible()
    await page.evaluate("hub.send('Numbers', 'note', 'hello')")
    await until(lambda: site.get("/said") == "hello")


async def test_the_server_forgets_who_left(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    await expect(page.get_by_text("a is 0")).to_be_visible()
    await page.evaluate("() => { window.stop = numbers.get('b').subscribe(() => 0) }")
    await site.is_followed(2)
    await page.evaluate("stop()")
    await site.is_followed(1)


async def test_a_page_that_is_left_takes_leave(site: Site, windows: Windows) -> None:
    before = int(site.get("/followers?kept"))
    page = await site.open(windows, SCRIPT)
    for _ in range(3):
        await expect(page.get_by_text("a is 0")).to_be_visible()
        await page.reload()
    await expect(page.get_by_text("a is 0")).to_be_visible()
    assert int(site.get("/followers?kept")) == before + 1
    await page.goto(site.put("elsewhere"))
    await until(lambda: int(site.get("/followers?kept")) == before)


async def test_a_page_says_that_it_reconnects_and_catches_up(
    mortal_site: Site, windows: Windows
) -> None:
    site = mortal_site
    windows.forgiven += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "WebSocket connection"]
    page = await site.open(windows, SCRIPT)
    site.change("a", 5)
    await expect(page.get_by_text("a is 5")).to_be_visible()
    site.kill()
    await expect(page.get_by_text("Just disconnected, reconnecting...")).to_be_visible()
    await expect(page.get_by_text("Reconnecting...", exact=True)).to_be_visible()
    await expect(page.get_by_text("a is 5")).to_be_visible()  # what it knew, it still shows
    await page.evaluate("() => { window.late = numbers.set('b', 3) }")
    site.start()
    assert await page.evaluate("late") == 3
    await expect(page.get_by_text("a is 0")).to_be_visible()  # the new server knows of nothing
    await expect(page.locator("#state")).to_have_text("Connected.")
    site.change("a", 9)
    await expect(page.get_by_text("a is 9")).to_be_visible()


async def test_a_page_comes_back_to_life_from_the_back_button(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    await expect(page.get_by_text("a is 0")).to_be_visible()
    await page.goto(site.put("elsewhere"))
    site.change("a", 3)
    await page.go_back()
    await expect(page.get_by_text("a is 3")).to_be_visible()


async def test_there_is_no_need_for_a_secure_page(site: Site, windows: Windows) -> None:
    # On plain http from elsewhere, crypto.randomUUID is not there.
    page = await site.open(
        windows, "<script>crypto.randomUUID = undefined; delete crypto.subtle</script>" + SCRIPT
    )
    await expect(page.get_by_text("a is 0")).to_be_visible()


async def url_of_socket(page: Page) -> str:
    async with page.expect_websocket() as waiting:
        await page.reload()
    return (await waiting.value).url


async def test_a_reload_is_another_client(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    first, second = await url_of_socket(page), await url_of_socket(page)
    assert first != second
    assert "/rpc/ws?clientId=" in first


@pytest.mark.soak
@pytest.mark.skipif(not os.environ.get("AFRESH_SOAK"), reason="takes 32 s: for make soak")
async def test_a_page_stays_connected_while_nothing_happens(site: Site, windows: Windows) -> None:
    page = await site.open(windows, SCRIPT)
    await expect(page.get_by_text("a is 0")).to_be_visible()
    await page.wait_for_timeout(32_000)
    assert await page.evaluate("states.at(-1)") == "Connected."
    assert "Just disconnected, reconnecting..." not in await page.evaluate("states")
    site.change("a", 1)
    await expect(page.get_by_text("a is 1")).to_be_visible()
