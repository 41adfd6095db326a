"""Whatever follows whatever, the browser's page is the server's page.

A stand-in for the browser applies every message as NiceGUI's script does, and is compared with the
elements on the server, number by number.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from nicegui import Client, json, ui
from nicegui.element import Element

from afresh.ui.nicegui import LiveBody, keep, live

from .conftest import Visit, strays, until

Shape = tuple[str, Any]


class StandIn:
    """Knows what a browser knows, from the first response and the messages after it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.elements = {
            number: json.loads(json.dumps(element._to_dict()))
            for number, element in client.elements.items()
        }
        emit = client.outbox._emit

        async def hear(message: tuple[str, str, dict[str, Any]]) -> None:
            _, kind, data = message
            if kind == "update":
                self.apply(json.loads(json.dumps(data)))
            await emit(message)

        client.outbox._emit = hear  # type: ignore[method-assign]

    def apply(self, update: dict[str, Any]) -> None:
        for key, element in update.items():
            if key == "_id":
                continue
            number = int(key)
            if element is None:
                self.elements.pop(number, None)
                continue
            for prop in element.pop("preserved_props", ()):
                if prop in self.elements.get(number, {}).get("props", {}):
                    element["props"][prop] = self.elements[number]["props"][prop]
            self.elements[number] = element

    def is_in_step(self) -> bool:
        """Whether the browser has the page, and nothing else."""
        return set(self.elements) == set(self.client.elements) and not self.differences()

    def differences(self) -> list[str]:
        """Where the page differs, of all that can be seen."""
        found = []
        for element in self.client.layout.descendants(include_self=True):
            expected = json.loads(json.dumps(element._to_dict()))
            expected.pop("preserved_props", None)
            if self.elements.get(element.id) != expected:
                found.append(f"{element.id}: {self.elements.get(element.id)} is not {expected}")
        return found


def random_shapes(chance: random.Random, depth: int = 0) -> list[Shape]:
    """A description of some elements to build, with others inside."""
    shapes: list[Shape] = []
    marks = iter(chance.sample(range(6), 6))
    keys = iter(chance.sample(range(4), 4))
    for _ in range(chance.randrange(5)):
        kind = chance.choice(["label", "input", "button", "row", "marked", "kept", "part", "chart"])
        if kind == "row" and depth < 3:
            shapes.append((kind, random_shapes(chance, depth + 1)))
        elif kind == "marked":
            shapes.append((kind, next(marks)))
        elif kind == "kept":
            shapes.append((kind, (depth, next(keys))) if depth == 0 else ("label", "x"))
        else:
            shapes.append((kind, chance.randrange(3)))
    return shapes


def build(shapes: list[Shape], part: Callable[[int], Element]) -> None:
    for kind, what in shapes:
        match kind:
            case "row" if isinstance(what, list):
                with ui.row():
                    build(what, part)
            case "input":
                ui.input("Field", value=str(what))
            case "button":
                ui.button(f"Button {what}", on_click=lambda: None)
            case "marked":
                ui.label(f"Marked {what}").mark(f"mark-{what}")
            case "kept":
                keep(what, lambda: ui.textarea("Kept"))
            case "part":
                part(what)
            case "chart":
                ui.echart({"series": [what]})
            case _:
                ui.label(f"Label {what}")


@pytest.mark.parametrize("seed", range(25))
async def test_the_browser_shows_what_the_server_means(visit: Visit, seed: int) -> None:
    chance = random.Random(seed)
    shapes: list[Shape] = []
    fails = False
    placed: list[LiveBody[[]]] = []

    @live
    async def part(number: int) -> None:
        ui.label(f"Part {number}")

    @live
    async def body() -> None:
        half = len(shapes) // 2
        build(shapes[:half], part)
        if chance.random() < 0.5:  # so that the outbox may run in the midst of it
            await asyncio.sleep(0.001)
        if fails:
            raise ValueError("no")
        build(shapes[half:], part)

    async with visit(lambda: placed.append(body())) as user:
        assert user.client is not None
        browser = StandIn(user.client)
        for _ in range(15):
            shapes = random_shapes(chance)
            fails = chance.random() < 0.2
            await placed[0].refresh()
            if chance.random() < 0.3:
                for field in user.client.layout.descendants():
                    if isinstance(field, ui.input):
                        field.set_value("typed")
            if chance.random() < 0.5:
                await asyncio.sleep(0.002)
        fails = False
        await placed[0].refresh()
        with contextlib.suppress(AssertionError):  # the outbox takes its time
            await until(browser.is_in_step)
        assert browser.differences() == []
        assert strays(user) == set()
        assert set(browser.elements) == set(user.client.elements)
