"""Elements of one's own, labels, lists, badges, and how to get NiceGUI."""

import asyncio
import subprocess
import sys

import pytest
from nicegui import ui

from afresh import MutableState
from afresh.ui.nicegui import LiveElement, live, live_badge, live_label, live_list

from .conftest import Numbers, Visit, sees, texts, until


async def test_an_element_of_ones_own_is_built_once_and_shown_every_value(
    visit: Visit, numbers: Numbers
) -> None:
    class Gauge(LiveElement[int]):
        def __init__(self, name: str) -> None:
            super().__init__(delay=0)
            self.name = name
            with self:
                self.label = ui.label()

        async def compute(self) -> int:
            return await numbers.get(self.name)

        def show(self, value: int) -> None:
            self.label.text = f"{self.name} {value}"
            if value > 1:
                ui.label("high")

    async with visit(lambda: Gauge("a")) as user:
        await sees(user, "a 0")
        (label,) = user.find("a 0").elements
        numbers.set("a", 2)
        await sees(user, "a 2", "high")
        assert user.find("a 2").elements == {label}


async def test_an_element_without_its_two_methods_says_so(visit: Visit) -> None:
    class Nothing(LiveElement[int]):
        pass

    async with visit(Nothing) as user:
        await user.should_see("must override compute()")


async def test_a_label_follows_its_value_and_looks_like_any_label(
    visit: Visit, numbers: Numbers
) -> None:
    def page() -> None:
        live_label(lambda: numbers.get("a")).classes("text-lg")
        live_label(lambda: numbers.get("a"), lambda value: f"{value} left", delay=0)

    async with visit(page) as user:
        await sees(user, "0", "0 left")
        numbers.set("a", 3)
        await sees(user, "3", "3 left")
        (label,) = user.find("3 left").elements
        assert "display" not in label.style


async def test_a_list_builds_each_row_once_whatever_happens_around_it(
    visit: Visit, numbers: Numbers
) -> None:
    numbers.values = {"b": 2, "c": 3}
    built: list[str] = []

    @live
    async def row(name: str) -> None:
        built.append(name)
        ui.label(f"{name} {await numbers.get(name)}")

    def page() -> None:
        live_list(numbers.names, row, empty=lambda: ui.label("nothing"), delay=0)

    async with visit(page) as user:
        await sees(user, "b 2", "c 3")
        numbers.values = {"c": 3, "a": 1, "b": 2}
        numbers.names.invalidate()
        await sees(user, "c 3", "a 1", "b 2")
        assert built == ["b", "c", "a"]
        numbers.set("c", 4)
        await sees(user, "c 4", "a 1", "b 2")
        assert built == ["b", "c", "a", "c"]
        numbers.values = {}
        numbers.names.invalidate()
        await sees(user, "nothing")
        numbers.set("a", 5)
        await sees(user, "a 5")


async def test_a_list_of_plain_rows_works_too(visit: Visit) -> None:
    keys = MutableState((1, 2))

    async def current() -> tuple[int, ...]:
        return keys.use()

    async with visit(lambda: live_list(current, lambda key: ui.label(f"row {key}"))) as user:
        await sees(user, "row 1", "row 2")
        first = user.find("row 1").elements
        keys.set((2, 1))
        await sees(user, "row 2", "row 1")
        assert user.find("row 1").elements == first


async def test_a_badge_tells_how_fresh_a_part_is(visit: Visit, numbers: Numbers) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    waiting = iter(gates)

    @live(delay=0.2)
    async def body() -> None:
        value = await numbers.get("a")
        if gate := next(waiting, None):
            await gate.wait()
        ui.label(str(value))

    def page() -> None:
        part = body()
        live_badge(part)
        live_badge(part.state)

    async with visit(page) as user:
        await sees(user, "Loading", "Loading")
        gates[0].set()
        await sees(user, "0", "In sync", "In sync")
        numbers.set("a", 1)
        await sees(user, "0", "Out of date", "Out of date")
        await sees(user, "0", "Updating", "Updating")
        gates[1].set()
        await sees(user, "1", "In sync", "In sync")
        numbers.break_down()
        await until(lambda: texts(user)[-1] == "Update failed")


@pytest.mark.parametrize("missing", ["nicegui", "fastapi"])
def test_a_missing_nicegui_is_explained_and_nothing_else_is(missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; import afresh.ui.nicegui"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 1
    assert ('pip install "afresh[nicegui]"' in run.stderr) == (missing == "nicegui")
