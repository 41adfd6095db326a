"""The levers of the flow page: stop this, kill that, send what nobody wants; order something."""

from __future__ import annotations

import random

from afresh.ui.nicegui import act, live

from ..backstage.contracts import (
    BROKER,
    Backstage,
    Kill,
    LetFail,
    SendDuplicate,
    SendPoison,
    SendUnknown,
    Start,
    Stop,
)
from ..contracts import USERS, Deliver, PlaceOrder, PutIntoBasket, Shop, ShopError
from ..page import box
from .parts import button, state_chip, titled, words


class Levers:
    """What breaks things, what mends them, and what gives them something to do.

    Args:
        backstage: does it.
        shop: where orders are placed.
    """

    def __init__(self, backstage: Backstage, shop: Shop) -> None:
        self._processes = backstage.processes
        self._mischief = backstage.mischief
        self._shop = shop

    def build(self) -> None:
        mischief = self._mischief
        with box("panel levers", "section").props('aria-label="Break things"'):
            titled("Break things", "And see that nothing gets lost.")
            with box("machines"):
                self.machines()
            with box("lever-group"):
                words("Send what nobody wants", "lever-title", "h3")
                with box("lever-row"):
                    button(
                        "Poison",
                        "science",
                        act(mischief.send_poison, SendPoison()),
                        label="Send a poison message",
                    ).tooltip("A message that nobody can read: it ends as a dead letter")
                    button(
                        "Duplicate",
                        "content_copy",
                        act(mischief.send_duplicate, SendDuplicate()),
                        label="Send a duplicate",
                    ).tooltip("The last order once more: it has no second effect")
                    button(
                        "Unknown",
                        "help_outline",
                        act(mischief.send_unknown, SendUnknown()),
                        label="Send an unknown event",
                    ).tooltip(
                        "An event of a type that nobody has heard of: counted, and left alone"
                    )
            with box("lever-group"):
                words("Give them something to do", "lever-title", "h3")
                with box("lever-row"):
                    button("1 order", "add_shopping_cart", act(self.order, 1), look="main").props[
                        "aria-label"
                    ] = "Place an order"
                    button("10 orders", "add_shopping_cart", act(self.order, 10)).props[
                        "aria-label"
                    ] = "Place 10 orders"
                    button("Restock", "local_shipping", act(self.restock))

    async def order(self, count: int) -> None:
        """Let customers taken at random buy what there is."""
        for _ in range(count):
            product_ids = list(await self._shop.products.ids())
            random.shuffle(product_ids)
            for product_id in product_ids:
                if await self._shop.stock.left(product_id) > 0:
                    break
            else:
                raise ShopError("Everything is sold out: restock first")
            user = random.choice(list(USERS))
            await self._shop.baskets.put(PutIntoBasket(user, product_id, 1))
            await self._shop.orders.place(PlaceOrder(user))

    async def restock(self) -> None:
        await self._shop.stock.deliver(Deliver(20))

    @live(delay=0.2)
    async def machines(self) -> None:
        for name in await self._processes.names():
            self.machine(name)

    @live(delay=0.1)
    async def machine(self, name: str) -> None:
        processes = self._processes
        state = await processes.state(name)
        pid = await processes.pid(name)
        title = await processes.title(name)
        with box("machine").mark(f"machine-{name}"):
            with box("stack grow"):
                words(f"{title} (broker)" if name == BROKER else title, "strong clip")
                with box("machine-state"):
                    state_chip(state)
                    words(f"pid {pid}" if pid else "", "soft small numbers clip")
            with box("lever-row"):
                if name != BROKER:
                    await self._failing(name, title)
                if state in ("running", "stopping"):
                    stop = button("Stop", "stop", act(processes.stop, Stop(name)))
                    stop.props["aria-label"] = f"Stop {title}"
                    stop.set_enabled(state == "running")
                    kill = button("Kill", "bolt", act(processes.kill, Kill(name)), look="danger")
                    kill.props["aria-label"] = f"Kill {title}"
                else:
                    start = button("Start", "play_arrow", act(processes.start, Start(name)))
                    start.classes("main").props["aria-label"] = f"Start {title}"
                    start.set_enabled(state != "starting")

    async def _failing(self, name: str, title: str) -> None:
        is_failing = await self._mischief.is_failing(name)
        switch = button(
            "Heal" if is_failing else "Fail",
            "healing" if is_failing else "sick",
            act(self._mischief.let_fail, LetFail(name, not is_failing)),
            look="on" if is_failing else "plain",
        )
        switch.props["aria-label"] = f"Let {title} {'work again' if is_failing else 'fail'}"
        switch.props["aria-pressed"] = "true" if is_failing else "false"
