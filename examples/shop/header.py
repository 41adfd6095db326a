"""The links at the top of the Python pages, to all pages of the demo."""

from __future__ import annotations

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from afresh.ui.nicegui import live

from .places import Place, Places

TITLES = {
    "page": "Shop",
    "plain": "Plain shop",
    "flow": "Behind the shop",
    "notification": "Notification",
    "analytics": "Analytics",
    "inventory": "Inventory",
}


_EMBEDDED = "<script>if (self !== top) document.documentElement.classList.add('embedded')</script>"
"""A page in a window of another page has no links: the page around it has them."""


def site_links(places: Places, here: str) -> None:
    """Place the links to those pages that are there.

    Args:
        places: where they are.
        here: the name of the page that they are placed on.
    """
    ui.add_head_html(_EMBEDDED)
    with ui.element("nav").classes("places").props('aria-label="Pages of the demo"'):
        _links(places, here, visitors_host())


@live(delay=0.1)
async def _links(places: Places, here: str, host: str) -> None:
    known = await places.all()
    with ui.element("div").classes("wide"):
        for name, title in TITLES.items():
            if name in known:
                link = TextElement(tag="a", text=title)
                link.props["href"] = address(known[name], host)
                if name == here:
                    link.props["aria-current"] = "page"


def visitors_host() -> str:
    """The host as the visitor knows it, which need not be what the server calls itself."""
    return ui.context.client.request.url.hostname or "127.0.0.1"


def address(place: Place, host: str) -> str:
    """Where a visitor who came by a host finds a place, by whatever scheme the visitor came."""
    return f"//{host}:{place.port}{place.path}"
