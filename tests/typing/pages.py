"""What type checkers make of live pages. Not run: `make lint` gives it to mypy and to pyright.

A line that must be refused carries an ignore comment; both checkers report such a comment
when there is nothing to ignore.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import Any, assert_type

from nicegui import ui

from afresh.states import UIActionResult
from afresh.ui.nicegui import (
    LiveBody,
    LiveElement,
    act,
    keep,
    live,
    live_badge,
    live_label,
    live_list,
    run_action,
)


@live
async def order_list(user_id: str, limit: int = 10) -> None:
    assert_type(keep("note", lambda: ui.textarea()), ui.textarea)
    ui.label(user_id * limit)


@live(delay=0.1)
async def footer() -> None: ...


def not_async() -> None: ...


live(not_async)  # type: ignore[arg-type]


class Page:
    @live
    async def body(self, user_id: str) -> None: ...


class Gauge(LiveElement[int]):
    async def compute(self) -> int:
        return 1

    def show(self, value: int) -> None: ...


class Wrong(LiveElement[int]):
    async def compute(self) -> str:  # type: ignore[override]
        return ""


async def quantity(product_id: str) -> int:
    return len(product_id)


async def names() -> tuple[str, ...]:
    return ("a",)


async def page() -> None:
    part = order_list("u1")
    assert_type((await part).state.is_initial, bool)
    order_list(5)  # type: ignore[arg-type]
    await part.update_params("u2", limit=3)
    await part.update_params(user="u2")  # type: ignore[call-arg]
    assert_type(footer(), LiveBody[[]])
    Page().body("u1")

    gauge = Gauge(delay=1)
    assert_type(gauge.state.value, int)
    live_badge(gauge)
    live_badge(gauge.state)

    live_label(lambda: quantity("tea"), lambda value: f"{value + 1}").classes("small")
    live_list(names, lambda name: ui.label(name.upper()), empty=lambda: ui.label("none"))

    ui.button(on_click=act(quantity, "tea"))
    act(quantity, 5)  # type: ignore[arg-type]
    assert_type(await run_action(quantity, "tea"), UIActionResult[Any])
