"""The shop's one page: products, the visitor's basket and orders, and what was sold to all.

Each part is a `@live` function of its own, which follows what it reads. Lists read ids, and leave
each row to a part that reads that row alone; so one change re-renders one row.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from nicegui import ui

from afresh.states import StateEvent
from afresh.ui.nicegui import LiveElement, act, live, live_badge

from .contracts import USERS, Deliver, Order, PlaceOrder, Product, PutIntoBasket, Shop
from .header import site_links
from .places import Places

STYLE = Path(__file__).with_name("shop.css")
_TO_BASKET = "() => document.getElementById('basket').scrollIntoView({behavior: 'smooth'})"


def colours() -> None:
    ui.colors(primary="#0f766e", negative="#b91c1c", positive="#15803d")


def euros(cents: int) -> str:
    return f"€{cents / 100:,.2f}"


def times(quantity: int, what: str) -> str:
    return f"{quantity}\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}{what}"


def pieces(count: int, singular: str = "item") -> str:
    return f"{count} {singular}" if count == 1 else f"{count} {singular}s"


def scarce(left: int) -> str:
    return f"Only {left} left" if left else "Sold out"


def box(classes: str, tag: str = "div") -> ui.element:
    return ui.element(tag).classes(classes)


def icon(name: str, size: int = 20) -> ui.icon:
    return ui.icon(name, size=f"{size}px")


class ShopPage:
    """What one visitor sees.

    Args:
        shop: the services.
        user: who is shopping, a key of `USERS`.
        places: what to link to; without them there are no links.
    """

    def __init__(self, shop: Shop, user: str, places: Places | None = None) -> None:
        self.shop = shop
        self.user = user
        self.places = places

    def build(self) -> None:
        ui.add_css(STYLE)
        colours()
        self._header()
        with box("wide page", "main"):
            with box("shelf", "section"):
                head = heading("Products")
                with box("goods"):
                    shelf = self.shelf()
                with head:
                    live_badge(shelf)
            with box("aside", "aside"):
                with box("", "section").props("id=basket"):
                    heading("Your basket")
                    with box("card"):
                        basket = self.basket()
                    fresh_print(basket)
                with box("", "section"):
                    heading("Your orders")
                    with box("card"):
                        orders = self.my_orders()
                    fresh_print(orders)
            with box("sales", "section"):
                with heading("Sold so far"):
                    restock = ui.button("Restock", icon="local_shipping", color=None)
                    restock.props("flat dense no-caps padding='4px 12px'").classes("quiet")
                    restock.on_click(act(self.shop.stock.deliver, Deliver(10)))
                with box("card"):
                    sales = self.sales()
                fresh_print(sales)
        self.dock()

    def _header(self) -> None:
        with box("bar", "header"):
            with box("wide"):
                with box("mark"):
                    icon("storefront")
                with box("stack grow").style("gap: 0"):
                    ui.label("Corner Market").classes("brand clip")
                    self.worker()
                self._switch()
            if self.places is not None:
                site_links(self.places, "page")

    def _switch(self) -> None:
        with ui.button(color=None).props("flat no-caps padding='4px 8px'") as button:
            with ui.row(align_items="center", wrap=False).style("gap: 8px"):
                ui.label(USERS[self.user][0]).classes("avatar")
                ui.label(USERS[self.user])
                icon("expand_more", 18).classes("soft")
            with ui.menu().props("anchor='bottom right' self='top right'"):
                for user, name in USERS.items():
                    ui.menu_item(name, lambda user=user: ui.navigate.to(f"?user={user}"))
        button.classes("who").props["aria-label"] = "Switch user"

    @live(delay=0.1)
    async def worker(self) -> None:
        pid = await self.shop.worker.pid()
        ui.label(f"Served by worker {pid}").classes("worker soft small fresh").mark(f"pid-{pid}")

    # ---- products

    @live(delay=0.1)
    async def shelf(self) -> None:
        for product_id in await self.shop.products.ids():
            self.product(product_id)

    @live(delay=0.1)
    async def product(self, product_id: str) -> None:
        product = await self.shop.products.get(product_id)
        with box("card product", "article"):
            with box("picture").style(f"--hue: {product.hue}"):
                icon(product.icon, 44)
            with box("about"):
                with box("stack"):
                    ui.label(product.name).classes("strong")
                    ui.label(product.unit).classes("soft small")
                self.stock(product_id)
                with box("buy"):
                    ui.label(euros(product.price)).classes("price money")
                    self.stepper(product)

    @live(delay=0.1)
    async def stock(self, product_id: str) -> None:
        left = await self.shop.stock.left(product_id)
        # Another mark is another element for the browser, which so plays the animation again.
        chip = (
            ui.label(f"{left} in stock" if left > 5 else scarce(left))
            .classes("chip fresh")
            .mark(f"left-{left}")
        )
        chip.classes("low" if 0 < left <= 5 else "none" if left == 0 else "")

    @live(delay=0.1)
    async def stepper(self, product: Product) -> None:
        quantity = await self.shop.baskets.quantity(self.user, product.id)
        left = await self.shop.stock.left(product.id)

        def put(quantity: int) -> Callable[[], Awaitable[None]]:
            command = PutIntoBasket(self.user, product.id, quantity)
            return act(self.shop.baskets.put, command)

        if quantity == 0:
            add = ui.button("Add", icon="add", on_click=put(1), color=None)
            add.props("flat no-caps padding='6px 14px 6px 10px'").classes("quiet")
            add.mark(f"add-{product.id}").set_enabled(left > 0)
            add.props["aria-label"] = f"Add {product.name}"
            return
        with box("stepper"):
            less = ui.button(icon="remove", on_click=put(quantity - 1)).props("flat dense size=sm")
            less.props["aria-label"] = f"One {product.name} less"
            ui.label(str(quantity)).classes("count")
            more = ui.button(icon="add", on_click=put(quantity + 1)).props("flat dense size=sm")
            more.props["aria-label"] = f"One {product.name} more"
            more.set_enabled(quantity < left)

    # ---- the visitor's own

    @live(delay=0.1)
    async def basket(self) -> None:
        lines = await self.shop.baskets.lines(self.user)
        if not lines:
            empty("shopping_basket", "Nothing in it yet", "Add a product, and it shows up here.")
            return
        for line in lines:
            product = await self.shop.products.get(line.product_id)
            left = await self.shop.stock.left(line.product_id)
            with box("entry").mark(f"line-{product.id}"):
                thumb(product)
                with box("stack grow"):
                    ui.label(product.name).classes("clip")
                    if line.quantity > left:
                        ui.label(scarce(left)).classes("small").style("color: var(--warn)")
                    else:
                        ui.label(times(line.quantity, euros(product.price))).classes("soft small")
                ui.label(euros(line.amount)).classes("money")
                nothing = PutIntoBasket(self.user, product.id, 0)
                drop = ui.button(icon="close", on_click=act(self.shop.baskets.put, nothing))
                drop.props("flat round dense size=sm color=grey-6")
                drop.props["aria-label"] = f"Remove {product.name}"
        with box("foot"):
            note = ui.input(placeholder="Add a note (optional)")
            note.props("outlined dense maxlength=80").props["aria-label"] = "Note"
            with box("sides"):
                ui.label("Total").classes("strong")
                ui.label(euros(await self.shop.baskets.total(self.user))).classes("price money")

            async def place() -> None:
                command = PlaceOrder(self.user, note.value or "")
                number = (await self.shop.orders.place(command)).id
                ui.notify(f"Thank you! Order #{number} is placed.", type="positive")

            order = ui.button("Place order", on_click=act(place), color=None)
            order.props("unelevated no-caps padding='10px'").classes("act")

    @live(delay=0.1)
    async def my_orders(self) -> None:
        order_ids = await self.shop.orders.for_user(self.user)
        for order_id in order_ids:
            self.order(order_id).classes("row")
        if not order_ids:
            empty("receipt_long", "No orders yet", "They appear here, in all your windows.")

    @live(delay=0.1)
    async def order(self, order_id: int) -> None:
        order = await self.shop.orders.get(order_id)
        with box("entry fresh").style("align-items: flex-start"):
            with box("stack grow"):
                with box("").style("display: flex; gap: 8px; align-items: baseline"):
                    ui.label(f"Order #{order.id}").classes("strong")
                    placed_at = order.placed_at.astimezone()
                    ui.label(f"{placed_at:%d %b, %H:%M}").classes("soft small")
                ui.label(await self._contents(order)).classes("soft small")
                if order.note:
                    ui.label(f"“{order.note}”").classes("small").style("overflow-wrap: anywhere")
            with box("stack end"):
                ui.label(euros(order.amount)).classes("money strong")
                self.status(order_id)

    @live(delay=0.1)
    async def status(self, order_id: int) -> None:
        status = await self.shop.orders.status(order_id)
        chip = ui.label(status.capitalize()).classes("chip fresh").mark(f"{order_id}-{status}")
        chip.classes("good" if status == "packed" else "")

    async def _contents(self, order: Order) -> str:
        return ", ".join(
            [
                times(line.quantity, (await self.shop.products.get(line.product_id)).name)
                for line in order.lines
            ]
        )

    @live(delay=0.1)
    async def dock(self) -> None:
        lines = await self.shop.baskets.lines(self.user)
        if lines:
            with box("dock"):
                with box("stack grow"):
                    ui.label(pieces(sum(line.quantity for line in lines))).classes("soft small")
                    ui.label(euros(await self.shop.baskets.total(self.user))).classes("price money")
                show = ui.button("View basket", color=None).classes("act")
                show.props("unelevated no-caps").on("click", js_handler=_TO_BASKET)

    # ---- everybody's

    @live(delay=0.1)
    async def sales(self) -> None:
        sold = {each: await self.shop.sales.of(each) for each in await self.shop.products.ids()}
        most = max((each.amount for each in sold.values()), default=0)
        if most == 0:
            empty("bar_chart", "Nothing sold yet", "The first order brings totals per product.")
            return
        for product_id, each in sorted(sold.items(), key=lambda item: -item[1].amount):
            if each.pieces == 0:
                continue
            product = await self.shop.products.get(product_id)
            with box("entry").mark(f"sold-{product_id}"):
                thumb(product)
                with box("stack grow").style("gap: 8px"):
                    with box("sides"):
                        ui.label(product.name).classes("clip")
                        ui.label(euros(each.amount)).classes("money strong")
                    with box("").style("display: flex; gap: 12px; align-items: center"):
                        with box("meter grow"):
                            box("").style(f"width: {100 * each.amount / most:.1f}%")
                        ui.label(f"{each.pieces} sold").classes("soft small money")
        total = await self.shop.sales.total()
        with box("entry").style("background: var(--ground)").mark("sold-total"):
            ui.label("Total").classes("strong grow")
            ui.label(f"{total.pieces} sold").classes("soft small money")
            ui.label(euros(total.amount)).classes("price money")


def heading(text: str) -> ui.element:
    with box("head") as head:
        ui.label(text).classes("title grow").props("role=heading aria-level=2")
    return head


def thumb(product: Product) -> None:
    with box("thumb").style(f"--hue: {product.hue}"):
        icon(product.icon)


def empty(picture: str, title: str, text: str) -> None:
    with box("empty"):
        icon(picture, 32)
        ui.label(title).classes("strong")
        ui.label(text).classes("soft small")


def fresh_print(part: LiveElement[Any]) -> None:
    """The small print below a part: how old it is, and how often it was updated."""
    label = ui.label().classes("print")
    updated = time.monotonic()

    def write() -> None:
        age = int(time.monotonic() - updated)
        when = f"{age} s ago" if age else "just now"
        label.text = f"updated {when} · v{part.state.snapshot.update_count}"

    def note_update(*_: object) -> None:
        nonlocal updated
        updated = time.monotonic()
        write()

    part.state.on(StateEvent.UPDATED, note_update)
    ui.timer(1.0, write)
