"""Every Python snippet of README and docs runs.

The blocks of a file run in their order, in one namespace and one event loop, and may await at top
level (the libraries that run Markdown for pytest do not offer that). A whole program may end with
`asyncio.run(main())` as it would anywhere else. A block that cannot run here is marked with a
comment on the line above it, `<!-- not run: reason -->`, and shows as skipped.
"""

import ast
import asyncio
import inspect
import re
import sys
import textwrap
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from afresh.rpc import exceptions
from tests.rpc.transports.parties import serving

ROOT = Path(__file__).parent.parent
TIMEOUT = 30.0
SERVED = "localhost:8000"

FENCE = re.compile(
    r"""
    (?:^[ ]*<!--[ ]*(?P<mark>not[ ]run|served):[ ]*(?P<words>[^\n]+?)[ ]*-->[ ]*\n\s*?)?
    ^(?P<indent>[ ]*)(?P<ticks>`{3,})[ ]*python\b(?:[^\n]*title="(?P<file>\w+)\.py")?[^\n]*\n
    (?P<code>.*?)
    ^(?P=indent)(?P=ticks)[ ]*$
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class Snippet:
    """A block of Python in a Markdown file."""

    line: int
    code: str
    reason: str | None = None
    """Why it is not run, if so."""
    served: str | None = None
    """What is served from here on, if so."""
    module: str | None = None
    """What it is imported as, if so."""


def snippets(text: str) -> Iterator[Snippet]:
    """The blocks of a Markdown text, those inside lists, tabs and notes as well."""
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code"))
        words = {match["mark"]: match["words"]}
        code = textwrap.dedent(match["code"])
        yield Snippet(line, code, words.get("not run"), words.get("served"), match["file"])


async def run(path: str, blocks: list[Snippet]) -> ModuleType:
    """Run the blocks one after another in a module of their own, which is returned."""
    module = ModuleType("__main__")
    module.__file__ = path  # some look for the file of a class
    address = SERVED
    programs: list[Coroutine[Any, Any, object]] = []
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        # A loop runs already: what a program hands to it is awaited when its block is done.
        patch.setattr(asyncio, "run", programs.append)
        # Errors of one page must not take the names of those of another.
        patch.setattr(exceptions, "default_registry", exceptions.ExceptionRegistry())
        for block in blocks:
            # Classes look their module up by name, to resolve annotations among other things.
            module.__name__ = block.module or "__main__"
            patch.setitem(sys.modules, module.__name__, module)
            if block.served is not None:
                app = vars(module)[block.served]
                address = f"127.0.0.1:{await stack.enter_async_context(serving(app))}"
            # The lines of a traceback are those of the Markdown file.
            source = "\n" * block.line + block.code.replace(SERVED, address)
            code = compile(source, path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, vars(module))
            if inspect.iscoroutine(result):
                await result
            while programs:
                await programs.pop(0)
    return module


def documents() -> list[Path]:
    """README and the pages of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def cases() -> Iterator[object]:
    """The blocks of each file together, but one skipped case for each block that is not run."""
    for path in documents():
        name = str(path.relative_to(ROOT))
        blocks = list(snippets(path.read_text(encoding="utf-8")))
        if running := [block for block in blocks if block.reason is None]:
            yield pytest.param(path, running, id=name)
        for block in blocks:
            if block.reason is not None:
                skip = pytest.mark.skip(reason=block.reason)
                yield pytest.param(path, [block], id=f"{name}:{block.line}", marks=skip)


@pytest.mark.parametrize(("path", "blocks"), list(cases()))
async def test_the_snippets_of_a_page_run(
    path: Path, blocks: list[Snippet], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In an empty folder, so that files a snippet writes go nowhere else."""
    monkeypatch.chdir(tmp_path)
    async with asyncio.timeout(TIMEOUT):
        await run(str(path), blocks)


MARKDOWN = """
Text.

```python
import asyncio
number = 1
await asyncio.sleep(0)
```

<!-- not run: needs a server -->
```python
raise SystemExit
```

!!! note

    ```python title="more.py"
    number += 1
    ```

```text
not python
```
"""


async def test_blocks_share_a_namespace_and_may_await() -> None:
    """The runner itself, on a page of its own."""
    blocks = list(snippets(MARKDOWN))
    assert [block.reason for block in blocks] == [None, "needs a server", None]
    module = await run("page.md", [block for block in blocks if block.reason is None])
    assert module.number == 2


async def test_a_failing_block_is_reported_with_the_line_of_the_page() -> None:
    """The traceback leads to the page, not to the runner."""
    blocks = list(snippets("One.\n\n```python\nfine = 1\nassert fine == 2\n```\n"))
    with pytest.raises(AssertionError) as caught:
        await run("page.md", blocks)
    last = caught.traceback[-1]
    assert (str(last.path).endswith("page.md"), last.lineno + 1) == (True, 5)


async def test_a_program_that_starts_its_own_event_loop_runs_too() -> None:
    """It is finished before the next block begins."""
    program = "async def main():\n    global done\n    done = True\n\nasyncio.run(main())\n"
    text = f"```python\nimport asyncio\n\n{program}```\n\n```python\nassert done\n```\n"
    assert (await run("page.md", list(snippets(text)))).done


async def test_a_block_can_be_imported_by_the_name_of_its_file() -> None:
    text = """```python title="numbers_of_mine.py"\none = 1\n```\n"""
    text += "```python\nfrom numbers_of_mine import one as number\nassert number == 1\n```\n"
    assert (await run("page.md", list(snippets(text)))).number == 1


async def test_an_app_is_served_where_the_page_says() -> None:
    """And not before the block that says so."""
    text = """```python
from afresh import App, connect

class Echo:
    async def say(self, text: str) -> str:
        return text

app = App()
app.add(Echo())
asgi = app.asgi()
address = "localhost:8000"
```

<!-- served: asgi -->
```python
async with connect("ws://localhost:8000/rpc/ws") as client:
    answer = await client.service(Echo).say("hello")
```
"""
    module = await run("page.md", list(snippets(text)))
    assert (module.address, module.answer) == ("localhost:8000", "hello")
