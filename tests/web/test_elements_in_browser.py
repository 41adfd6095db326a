"""`<afresh-value>` and `<afresh-status>`, and pages of other libraries that use them."""

from __future__ import annotations

import os

import pytest
from playwright.async_api import Page, expect

from tests.ui.browsing import Windows

from .site import MODULE, Site

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SERVICE = """
<script type="module">
  import { connect, formats } from "/afresh/afresh.js"
  window.hub = connect()
  window.numbers = hub.service("Numbers")
  formats.euros = cents => `€${(cents / 100).toFixed(2)}`
</script>
"""


async def values(page: Page, selector: str) -> list[str]:
    return await page.locator(selector).all_inner_texts()


# -- values


async def test_an_element_shows_a_value_and_follows_it(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        MODULE
        + """a: <afresh-value service="Numbers" method="get" args='["a"]'>…</afresh-value>""",
    )
    element = page.locator("afresh-value")
    await expect(element).to_have_text("0")
    site.change("a", 5)
    await expect(element).to_have_text("5")


async def test_a_path_leads_to_a_part_of_the_value(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        MODULE
        + """<afresh-value service="Numbers" method="items" path="0.tags.1"></afresh-value>
        <afresh-value service="Numbers" method="item" args="[1]"></afresh-value>
        <afresh-value service="Numbers" method="items" path="7.name">none yet</afresh-value>""",
    )
    await expect(page.locator("afresh-value").nth(0)).to_have_text("y")
    await expect(page.locator("afresh-value").nth(1)).to_have_text(
        '{"id":1,"name":"<b>one</b>","tags":["x","y"]}'
    )
    await expect(page.locator("afresh-value").nth(2)).to_have_text("")


async def test_a_template_is_shown_for_each_item_of_a_list(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        SERVICE
        + """<afresh-value service="Numbers" method="items"><ul><template>
          <li title="{{name}}, {{ id }}">{{id}}: {{name}} [<template each="tags">-{{.}}</template>]
            {{id|euros}}{{missing}}{{tags.7.x}}</li>
        </template></ul></afresh-value>""",
    )
    rows = page.locator("li")
    await expect(rows).to_have_count(2)
    await expect(rows.nth(0)).to_have_text("1: <b>one</b> [-x-y] €0.01")
    await expect(rows.nth(0)).to_have_attribute("title", "<b>one</b>, 1")
    await expect(rows.nth(1)).to_have_text('2: two "2" [] €0.02')
    assert await page.locator("ul > template").count() == 1


async def test_rows_of_a_table_work_as_well(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        MODULE
        + """<afresh-value service="Numbers" method="items"><table>
        <thead><tr><th>Name</th></tr></thead><tbody><template><tr><td>{{name}}</td></tr></template></tbody></table></afresh-value>""",
    )
    await expect(page.locator("tbody > tr")).to_have_count(2)
    assert await values(page, "td") == ["<b>one</b>", 'two "2"']


async def test_a_template_reads_one_record_and_lists_within_it(
    windows: Windows, site: Site
) -> None:
    page = await site.open(
        windows,
        MODULE
        + """<afresh-value service="Numbers" method="item" args="[1]">
        <h1><template>{{name}}</template></h1>
        <ol><template each="tags"><li>{{.}}</li></template></ol></afresh-value>""",
    )
    await expect(page.locator("h1")).to_have_text("<b>one</b>")
    assert await values(page, "li") == ["x", "y"]


async def test_ids_first_then_each_item_by_itself(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        SERVICE
        + """<afresh-value service="Numbers" method="names"><template>
          <p>{{.}} = <afresh-value service="Numbers" method="get" args="[{{.}}]"></afresh-value></p>
        </template></afresh-value>""",
    )
    await expect(page.locator("p")).to_have_text(["a = 0", "b = 0", "c = 0"])
    await page.evaluate("() => { window.rows = [...document.querySelectorAll('p')] }")
    name = """quote ' " } ]"""
    await page.evaluate("name => numbers.set(name, 4)", name)
    await page.evaluate("numbers.set('b', 7)")
    await expect(page.locator("p")).to_have_text(["a = 0", "b = 7", "c = 0", f"{name} = 4"])
    assert await page.evaluate("rows.every(each => each.isConnected)")


async def test_rows_that_did_not_change_stay_as_they_are(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        SERVICE
        + """<afresh-value service="Numbers" method="items"><template>
          <p><input aria-label="{{id}}"> {{name}}</p></template></afresh-value>""",
    )
    await page.get_by_label("1").fill("typed")
    await page.evaluate("numbers.rename(2, 'zwei')")
    await expect(page.get_by_text("zwei")).to_be_visible()
    await expect(page.get_by_label("1")).to_have_value("typed")
    await expect(page.get_by_label("1")).to_be_focused()
    await page.evaluate("numbers.rename(2, 'two \"2\"')")
    await expect(page.get_by_text("two")).to_be_visible()


ATTACK = "<img src=x onerror=hack()>"


async def test_values_are_text_whatever_they_hold(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        "<script>window.hack = () => { window.hacked = true }</script>"
        + SERVICE
        + """<afresh-value service="Numbers" method="item" args="[1]" path="name"></afresh-value>
        <afresh-value service="Numbers" method="item" args="[1]"><template>
          <p title="{{name}}">{{name}}</p><a href="{{name}}">link</a>
          <i style="width: {{name}}; color: red">i</i>
        </template></afresh-value>""",
    )
    try:
        link = page.locator("a")
        for attack in (
            ATTACK,
            "javascript:hack()",
            " java\tscript:hack()",
            "JAVASCRIPT:hack()",
            "{{id}} {{constructor}}",
            "1px; background: url(//evil.test)",
        ):
            await page.evaluate("name => numbers.rename(1, name)", attack)
            await expect(page.locator("p")).to_have_text(attack, use_inner_text=False)
            await expect(page.locator("afresh-value").first).to_have_text(attack)
            is_script = "script:" in attack.lower()
            assert await link.get_attribute("href") == (None if is_script else attack)
            style = await page.locator("i").get_attribute("style")
            assert style is not None
            assert "url(" not in style
            assert style.count(";") == 1
        assert await page.evaluate("window.hacked") is None
    finally:
        await page.evaluate("numbers.rename(1, '<b>one</b>')")


@pytest.mark.parametrize(
    "template",
    [
        '<b onclick="f({{id}})"></b>',
        '<b x-on:click="f({{id}})"></b>',
        '<b @click="f({{id}})"></b>',
        '<b :class="{{name}}"></b>',
        '<b hx-on:click="f({{id}})"></b>',
        '<b hx-vals="{{name}}"></b>',
        '<b data-hx-trigger="{{name}}"></b>',
        '<iframe srcdoc="{{name}}"></iframe>',
        "<script>f({{id}})</script>",
        "<style>b { color: {{name}} }</style>",
    ],
)
async def test_a_value_that_would_be_run_is_refused(
    windows: Windows, site: Site, template: str
) -> None:
    windows.forgiven.append("would be run")
    page = await site.open(
        windows,
        MODULE
        + f"""<afresh-value service="Numbers" method="item" args="[1]">
        <template>{template}</template></afresh-value>""",
    )
    async with page.expect_console_message(lambda each: "would be run" in each.text):
        await page.reload()
    assert await page.locator("afresh-value > :not(template)").count() == 0


async def test_changed_attributes_lead_to_another_value(windows: Windows, site: Site) -> None:
    site.change("b", 2)
    page = await site.open(
        windows,
        MODULE + """<afresh-value service="Numbers" method="get" args='["a"]'></afresh-value>""",
    )
    element = page.locator("afresh-value")
    await expect(element).to_have_text("0")
    await element.evaluate("each => each.setAttribute('args', '[\"b\"]')")
    await expect(element).to_have_text("2")
    await site.is_followed(1)


async def test_an_element_that_goes_lets_the_server_forget_it(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        MODULE
        + """<div id="one"><afresh-value service="Numbers" method="get" args='["a"]'>
        </afresh-value></div><div id="two"></div>""",
    )
    element = page.locator("afresh-value")
    await expect(element).to_have_text("0")
    await page.evaluate("two.append(one.firstChild)")  # moved: followed on
    site.change("a", 1)
    await expect(element).to_have_text("1")
    await site.is_followed(1)
    await page.evaluate("two.replaceChildren()")
    await site.is_followed(0)


async def test_an_update_is_an_event(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        """<script>window.events = []
        document.addEventListener("afresh:update", ({ detail, target }) =>
          events.push([target.id, detail.value, detail.error?.message]))</script>"""
        + MODULE
        + """<afresh-value id="a" service="Numbers" method="get" args='["a"]' hidden></afresh-value>
        <afresh-value id="b" service="Numbers" method="get" args='["broken"]'>before</afresh-value>
        """,
    )
    await page.wait_for_function("events.length === 2")
    site.change("a", 1)
    await page.wait_for_function("events.length === 3")
    assert await page.evaluate("events") == [
        ["a", 0, None],
        ["b", None, "there is none"],
        ["a", 1, None],
    ]
    await expect(page.locator("#b")).to_have_attribute("error", "")
    await expect(page.locator("#b")).to_have_text("before")
    assert await page.locator("#a").get_attribute("error") is None


async def test_nothing_to_show_can_be_told_by_css(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        SERVICE
        + """<afresh-value service="Numbers" method="item" args="[2]" path="tags">
        <template>{{.}}</template></afresh-value>""",
    )
    await expect(page.locator("afresh-value")).to_have_attribute("empty", "")


async def test_options_are_data_attributes(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        MODULE
        + """<afresh-value service="Numbers" method="get" args='["a"]' data-delay="60000">
        </afresh-value>
        <afresh-value service="Numbers" method="get" args='["b"]' data-arity="2"></afresh-value>""",
    )
    slow, quick = page.locator("afresh-value").nth(0), page.locator("afresh-value").nth(1)
    await expect(slow).to_have_text("0")
    site.change("a", 1)
    site.change("b", 1)
    await expect(quick).to_have_text("1")
    await page.wait_for_timeout(300)
    await expect(slow).to_have_text("0")


async def test_another_address_is_given_by_an_element_around(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        """<div afresh-url="../rpc/ws?other=1"><afresh-value service="Numbers" method="get"
        args='["a"]'></afresh-value> <afresh-status></afresh-status></div>""",
    )
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    await page.set_content(await page.content() + MODULE)
    await expect(page.locator("afresh-value")).to_have_text("0")
    await expect(page.locator("afresh-status")).to_contain_text("onnected.")
    assert len(sockets) == 1
    assert "/rpc/ws?other=1&clientId=" in sockets[0]


async def test_a_strict_content_security_policy_is_no_obstacle(
    windows: Windows, site: Site
) -> None:
    policy = "default-src 'self'; img-src data:; require-trusted-types-for 'script'"
    page = await site.open(
        windows,
        MODULE
        + """<afresh-value service="Numbers" method="item" args="[1]"><template>
        <p title="{{id}}">{{name}}</p></template></afresh-value>
        <afresh-status></afresh-status>""",
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
    )
    await expect(page.locator("p")).to_have_text("<b>one</b>")
    await expect(page.locator("p")).to_have_attribute("title", "1")
    await expect(page.locator("afresh-status")).to_contain_text("onnected.")


async def test_a_page_may_load_the_module_twice(windows: Windows, site: Site) -> None:
    page = await site.open(
        windows,
        MODULE
        + MODULE.replace(".js", ".js?again")
        + """<afresh-value service="Numbers" method="get" args='["a"]'></afresh-value>""",
    )
    await expect(page.locator("afresh-value")).to_have_text("0")


# -- the state of the connection


async def test_the_status_tells_and_lets_reconnect(mortal_site: Site, windows: Windows) -> None:
    site = mortal_site
    windows.forgiven += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "WebSocket connection"]
    page = await site.open(windows, MODULE + "<afresh-status></afresh-status>")
    status = page.locator("afresh-status")
    text, button = status.get_by_role("status"), status.get_by_role("button")
    await expect(text).to_have_text("Just connected.")
    await expect(status).to_have_attribute("kind", "just-connected")
    await expect(text).to_have_text("Connected.")
    await expect(button).to_be_hidden()
    site.kill()
    await expect(text).to_have_text("Just disconnected, reconnecting...")
    await expect(text).to_have_text("Disconnected.", timeout=20_000)
    await expect(status).to_have_attribute("kind", "disconnected")
    await expect(button).to_be_visible()
    await expect(status.locator("small")).to_have_text("in 5 s", timeout=30_000)
    site.start()
    await button.click()
    await expect(status).to_have_attribute("kind", "just-connected", timeout=2000)
    await page.evaluate("document.querySelector('afresh-status').remove()")


# -- pages of other libraries


HTMX = """
<afresh-value id="watch" service="Numbers" method="get" args='["a"]' hidden></afresh-value>
<div hx-get="/followers" hx-trigger="afresh:update from:#watch" hx-swap="beforeend">requests: </div>
"""


async def test_an_update_triggers_what_listens_to_its_event_on_the_element(
    windows: Windows, site: Site
) -> None:
    # htmx listens to its triggers this way.
    listening = """<script type="module">
      for (const each of document.querySelectorAll("[hx-trigger]")) {
        const [event, source] = each.getAttribute("hx-trigger").split(" from:")
        document.querySelector(source).addEventListener(event, async () =>
          each.append(await (await fetch(each.getAttribute("hx-get"))).text()))
      }</script>"""
    page = await site.open(windows, HTMX + listening + MODULE)
    await expect(page.get_by_text("requests: 1", exact=True)).to_be_visible()
    site.change("a", 1)
    await expect(page.get_by_text("requests: 11", exact=True)).to_be_visible()


@pytest.fixture
def modules() -> str:
    """Where the packages of Node are that these libraries come in."""
    path = os.environ.get("AFRESH_NODE_MODULES")
    if path is None:
        pytest.skip("set AFRESH_NODE_MODULES to a folder with htmx.org and alpinejs")
    return path


async def test_htmx_makes_a_request_when_a_value_changed(
    windows: Windows, site: Site, modules: str
) -> None:
    del modules
    script = '<script src="/node_modules/htmx.org/dist/htmx.min.js"></script>'
    page = await site.open(windows, script + HTMX + MODULE)
    await expect(page.get_by_text("requests: 1", exact=True)).to_be_visible()
    site.change("a", 1)
    await expect(page.get_by_text("requests: 11", exact=True)).to_be_visible()


ALPINE = """
<script type="module">
  import { connect } from "/afresh/afresh.js"
  document.addEventListener("alpine:init", () =>
    Alpine.data("live", (service, method, ...args) => ({
      value: undefined,
      error: undefined,
      init() {
        this.stop = connect().call(service, method, ...args).subscribe(
          value => Object.assign(this, { value, error: undefined }),
          { onError: error => this.error = error.message })
      },
      destroy() { this.stop() }
    })))
</script>
<script defer src="/node_modules/alpinejs/dist/cdn.min.js"></script>
<div x-data="{ shown: true }">
  <button @click="shown = false">Hide</button>
  <template x-if="shown">
    <p x-data="live('Numbers', 'get', 'a')" x-text="`a is ${value}`"></p>
  </template>
  <p x-data="live('Numbers', 'get', 'broken')" x-text="error"></p>
</div>
"""


async def test_alpine_data_can_be_live(windows: Windows, site: Site, modules: str) -> None:
    del modules
    page = await site.open(windows, ALPINE)
    await expect(page.get_by_text("a is 0")).to_be_visible()
    await expect(page.get_by_text("there is none")).to_be_visible()
    site.change("a", 5)
    await expect(page.get_by_text("a is 5")).to_be_visible()
    await site.is_followed(2)
    await page.get_by_role("button").click()
    await site.is_followed(1)
