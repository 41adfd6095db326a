"""Every snippet of JavaScript and HTML in the docs is sound, and runs in a real browser.

The page of the docs that it is on defines the server in Python, as `asgi`. The scripts of a page
are one module, in their order, as its blocks of Python are; each block of HTML is a web page. What
those need of other libraries is not there, and must do no harm.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import expect
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.rpc.transports.parties import serving
from tests.test_snippets import ROOT, Snippet, documents, run, snippets
from tests.ui.browsing import Windows

from .conftest import STATIC

TIMEOUT = 15_000
FENCE = re.compile(
    r"^```(?P<language>js|html)\b[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
SCRIPT = re.compile(r'<script type="module">(?P<code>.*?)</script>', re.DOTALL)
IMPORT = re.compile(r'^\s*import \{(?P<names>[^}]+)\} from "/afresh/afresh\.js"$', re.MULTILINE)
FRAME = '<!doctype html><html lang="en"><head><link rel="icon" href="data:,"></head><body>'

# What the docs promise: without 'unsafe-inline' and 'unsafe-eval'.
POLICY = {"Content-Security-Policy": "default-src 'self' 'nonce-docs'; img-src 'self' data:"}

NOTE_UPDATES = """<script>
document.addEventListener("afresh:update", ({ target, detail }) => {
  if (detail.error) console.error(`${detail.error}`)
  target.toggleAttribute("updated", true)
})
</script>
"""
NOTE_END = 'document.body.append("Finished.")'


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """The blocks in a language, each with its line."""
    return [
        (text.count("\n", 0, match.start("code")), match["code"])
        for match in FENCE.finditer(text)
        if match["language"] == language
    ]


def scripts() -> Iterator[object]:
    """Each script, those within HTML as well."""
    for path in documents():
        text = path.read_text(encoding="utf-8")
        found = blocks(text, "js")
        for line, html in blocks(text, "html"):
            found += [(line, match["code"]) for match in SCRIPT.finditer(html)]
        for line, code in found:
            yield pytest.param(code, id=f"{path.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize("code", list(scripts()))
def test_a_script_is_sound_and_imports_what_there_is(code: str, node: str, tmp_path: Path) -> None:
    script = tmp_path / "script.mjs"
    script.write_text(code, encoding="utf-8")
    check = subprocess.run(
        [node, "--check", script.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr
    module = (STATIC / "afresh.js").read_text(encoding="utf-8")
    exported = set(re.findall(r"^export (?:const|class) (\w+)", module, re.MULTILINE))
    imported = {
        name.strip() for match in IMPORT.finditer(code) for name in match["names"].split(",")
    }
    assert imported <= exported


def pages() -> Iterator[object]:
    """Each page of the docs with scripts: its Python, and the web pages that are on it."""
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        script = "".join(code for _, code in blocks(text, "js"))
        if script:
            every = [f'{FRAME}<script type="module">{script}\n{NOTE_END}</script>']
            for _, html in blocks(text, "html"):
                page = html if html.startswith("<!doctype") else FRAME + html
                every.append(page.replace("<script", f"{NOTE_UPDATES}<script", 1))
            yield pytest.param(path, list(snippets(text)), every, id=path.name)


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize(("path", "python", "html"), list(pages()))
async def test_scripts_and_pages_do_what_they_show(
    path: Path, python: list[Snippet], html: list[str], windows: Windows
) -> None:
    """No error, on the page or in the console; and everything that is live gets its value."""

    async def send(request: Request) -> Response:
        page = html[request.path_params["number"]].replace("<script", '<script nonce="docs"')
        return HTMLResponse(page, headers=POLICY)

    module = await run(str(path), python)
    module.asgi.router.routes.append(Route("/pages/{number:int}", send))
    async with serving(module.asgi) as port:
        for number in range(len(html)):
            page = await windows.open(f"http://127.0.0.1:{port}/pages/{number}")
            if number == 0:
                await expect(page.get_by_text("Finished.")).to_be_visible(timeout=TIMEOUT)
            await expect(page.locator("afresh-value:not([updated])")).to_have_count(
                0, timeout=TIMEOUT
            )
            await page.close()
