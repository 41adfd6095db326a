"""The flow page, put together: what happens behind the shop, and the levers that break it."""

from __future__ import annotations

from pathlib import Path

from nicegui import ui

from ..backstage.contracts import Backstage
from ..contracts import Shop
from ..header import site_links
from ..page import STYLE as SHOP_STYLE
from ..page import box, colours, icon
from .diagram import Diagram
from .feed import Feed
from .figures import Figures
from .letters import DeadLetters
from .levers import Levers
from .traffic import Traffic
from .verdict import Ledger, VerdictPanel
from .windows import Windows

STYLE = Path(__file__).with_name("flow.css")


class FlowPage:
    """What happens behind the shop, for one visitor.

    Args:
        backstage: what is known, and what can be broken.
        shop: where the levers order something.
        traffic: what has just moved; one for all visitors.
        ledger: what was placed and what was handled; one for all visitors.
    """

    def __init__(self, backstage: Backstage, shop: Shop, traffic: Traffic, ledger: Ledger) -> None:
        self.backstage = backstage
        self.shop = shop
        self.traffic = traffic
        self.ledger = ledger

    def build(self) -> None:
        ui.add_css(SHOP_STYLE)
        ui.add_css(STYLE)
        colours()
        self._header()
        with box("wide flow", "main"):
            VerdictPanel(self.backstage, self.ledger).build()
            Figures(self.backstage.board).build()
            with box("beside"):
                Diagram(self.backstage, self.traffic).build()
                Levers(self.backstage, self.shop).build()
            with box("halves"):
                DeadLetters(self.backstage).build()
                Feed(self.backstage.board).build()
            Windows(self.backstage.places, self.shop).build()

    def _header(self) -> None:
        with box("bar", "header"):
            with box("wide"):
                with box("mark"):
                    icon("lan")
                with box("stack grow").style("gap: 0"):
                    ui.label("Behind the shop").classes("brand clip").props(
                        "role=heading aria-level=1"
                    )
                    ui.label("Corner Market, its broker and three services").classes(
                        "soft small clip"
                    )
            site_links(self.backstage.places, "flow")
