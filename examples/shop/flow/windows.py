"""The whole picture: all pages of the demo in small windows on one page, each of them live."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nicegui import ui

from afresh.ui.nicegui import live

from .. import terminal
from ..contracts import Shop
from ..header import address, visitors_host
from ..page import box, icon
from ..places import Place, Places
from .parts import titled, words


@dataclass(frozen=True, slots=True)
class Frame:
    """One window: the name of its place, what is in it, and of which side of the picture it is."""

    place: str
    title: str
    note: str
    picture: str


CLIENTS = (
    Frame("page", "Python page", "NiceGUI, served by Python", "web_asset"),
    Frame("plain", "Plain page", "HTML and afresh.js", "html"),
)
SERVICES = (
    Frame("notification", "Notification", "A process of its own", "notifications"),
    Frame("analytics", "Analytics", "A process of its own", "bar_chart"),
    Frame("inventory", "Inventory", "A process of its own", "inventory_2"),
)


LOOKS = {terminal.BOLD: "bold", terminal.SOFT: "dim", terminal.WARN: "warn", terminal.PLAIN: ""}
"""How this page shows what a terminal is told by codes."""


class Windows:
    """The pages, loaded only where they come into sight.

    Args:
        places: where they are.
        shop: what the terminal shows.
    """

    def __init__(self, places: Places, shop: Shop) -> None:
        self._places = places
        self._shop = shop
        self._host = visitors_host()
        # On a phone they would be a long way to scroll: there they are opened one by one.
        agent = ui.context.client.request.headers.get("user-agent", "")
        self._are_open = "Mobi" not in agent

    def build(self) -> None:
        with box("panel windows", "section").props('aria-label="The whole picture"'):
            titled("The whole picture", "Three live clients of one shop, three services behind it.")
            self.frames()

    @live(delay=0.2)
    async def frames(self) -> None:
        places = await self._places.all()
        with box("frames"):
            for frame in CLIENTS:
                self._frame(frame, places)
            is_open = self._are_open
            with window(
                "Terminal", "python -m examples.shop terminal", "terminal", is_open=is_open
            ):
                with box("screen", "pre").props('tabindex=0 aria-label="Terminal"'):
                    self.screen()
            for frame in SERVICES:
                self._frame(frame, places)

    def _frame(self, frame: Frame, places: Mapping[str, Place]) -> None:
        place = places.get(frame.place)
        if place is None:
            return
        url = address(place, self._host)
        with window(frame.title, frame.note, frame.picture, url, is_open=self._are_open):
            page = box("", "iframe").props("loading=lazy")
            page.props["src"] = url
            page.props["title"] = frame.title

    @live(delay=0.1)
    async def screen(self) -> None:
        """What the terminal shows, by the terminal's own functions."""
        shown = [await terminal.shelf(self._shop), await terminal.orders(self._shop, "alice")]
        look = ""
        for piece in re.split(r"(\x1b\[\d+m)", "\n\n".join(shown)):
            if piece in LOOKS:
                look = LOOKS[piece]
            elif piece:
                words(piece, look)


def window(
    title: str, note: str, picture: str, url: str = "", *, is_open: bool = True
) -> ui.element:
    """A window that can be closed; what is in it is put into it."""
    with box("window", "details") as frame:
        if is_open:
            frame.props("open")
        with box("window-bar", "summary"):
            icon(picture, 18)
            words(title, "strong")
            words(note, "soft small clip grow")
            icon("expand_more", 18).classes("fold")
        if url:
            with box("open-link", "a").props("target=_blank rel=noopener") as link:
                icon("open_in_new", 18)
            link.props["href"] = url
            link.props["aria-label"] = f"Open {title} in a window of its own"
        return box("window-body")
