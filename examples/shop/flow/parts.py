"""Small things that several panels of the flow page are made of."""

from __future__ import annotations

from typing import Any

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from ..backstage.contracts import State
from ..page import box, icon

STATES: dict[State, tuple[str, str]] = {
    "running": ("Running", "good"),
    "starting": ("Starting", "busy"),
    "stopping": ("Stopping", "busy"),
    "stopped": ("Stopped", "off"),
    "failed": ("Down", "bad"),
}
"""What people call the state of a process, and how it looks."""


def words(text: str, classes: str = "", tag: str = "span") -> TextElement:
    """A text in an element of any kind."""
    return TextElement(tag=tag, text=text).classes(classes)


def state_chip(state: State) -> None:
    """The state of a process: a dot of a colour, and the word."""
    text, look = STATES[state]
    words(text, f"state {look}")


def button(
    text: str, name: str, on_click: Any, *, label: str = "", look: str = "plain"
) -> ui.button:
    """A small button with an icon; `label` says more to those who only hear it."""
    made = ui.button(text, icon=name, on_click=on_click, color=None)
    made.props("flat no-caps dense").classes(f"lever {look}")
    if label:
        made.props["aria-label"] = label
    return made


def titled(text: str, note: str = "") -> ui.element:
    """The head of a panel; what goes to its right end is put into it."""
    with box("panel-head") as head, box("stack grow"):
        words(text, "panel-title", "h2")
        if note:
            words(note, "soft small")
    return head


def quiet_note(name: str, text: str) -> None:
    """What a panel shows while there is nothing to show."""
    with box("nothing"):
        icon(name, 28)
        words(text, "soft")


def counted(count: int, singular: str, plural: str = "") -> str:
    """A number and what it counts."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
