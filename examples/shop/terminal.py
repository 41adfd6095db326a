"""The shop in a terminal: what is in stock and what was ordered, live; and a way to order."""

from __future__ import annotations

import asyncio
import re
import sys

from afresh import ComputedState, MutableState, connect
from afresh.remote import ConnectionMonitor

from .contracts import (
    USERS,
    Deliver,
    PlaceOrder,
    PutIntoBasket,
    Shop,
    ShopError,
    describe,
    shop_of,
)

CLEAR = "\N{ESCAPE}[H\N{ESCAPE}[2J"
BOLD, SOFT, WARN, PLAIN = (f"\N{ESCAPE}[{code}m" for code in (1, 2, 33, 0))
HELP = "order PRODUCT [PIECES] · restock · quit"


async def follow(url: str, user: str, *, with_colours: bool) -> None:
    """Show the shop, and show it again whenever something changes, until the input ends.

    Args:
        url: of the server.
        user: who is shopping.
        with_colours: draw over what was there before, as terminals can.
    """
    async with connect(url) as client:
        shop = shop_of(client)
        said = MutableState("")
        async with ConnectionMonitor(client.peer) as monitor:

            async def screen() -> str:
                lines = [await shelf(shop), await orders(shop, user), said.use()]
                status = await monitor.use()
                if not status.likely_connected:
                    lines.append(f"{WARN}{status.text}{PLAIN} What you see may be out of date.")
                return "\n\n".join(line for line in lines if line)

            async with ComputedState(screen, delay=0.05) as state:
                drawing = asyncio.create_task(draw(state, with_colours=with_colours))
                await obey(shop, user, said)
                drawing.cancel()


async def draw(state: ComputedState[str], *, with_colours: bool) -> None:
    async for text in state:
        if with_colours:
            print(f"{CLEAR}{text}\n\n{SOFT}{HELP}{PLAIN}\n> ", end="", flush=True)
        else:
            print(re.sub(r"\x1b\[\d+m", "", text), end="\n\n", flush=True)


async def shelf(shop: Shop) -> str:
    pid = await shop.worker.pid()
    lines = [f"{BOLD}Corner Market{PLAIN}  {SOFT}served by worker {pid}{PLAIN}"]
    for product_id in await shop.products.ids():
        product = await shop.products.get(product_id)
        left = await shop.stock.left(product_id)
        sold = await shop.sales.of(product_id)
        stock = f"{left} in stock" if left else "sold out"
        lines.append(
            f"  {product.id:<11} {product.name:<23} €{product.price / 100:>6.2f}   "
            f"{WARN if left <= 5 else ''}{stock:<12}{PLAIN} {SOFT}{sold.pieces} sold{PLAIN}"
        )
    return "\n".join(lines)


async def orders(shop: Shop, user: str) -> str:
    lines = [f"{BOLD}Orders of {USERS[user]}{PLAIN}"]
    for order_id in await shop.orders.for_user(user):
        order = await shop.orders.get(order_id)
        contents = [
            times(line.quantity, (await shop.products.get(line.product_id)).name)
            for line in order.lines
        ]
        note = f"  “{order.note}”" if order.note else ""
        lines.append(
            f"  #{order.id:<4} {await shop.orders.status(order_id):<7} {', '.join(contents)}"
            f"  €{order.amount / 100:.2f}{note}"
        )
    return "\n".join(lines) if len(lines) > 1 else f"{lines[0]}\n  none yet"


def times(quantity: int, what: str) -> str:
    return f"{quantity} \N{MULTIPLICATION SIGN} {what}"


async def obey(shop: Shop, user: str, said: MutableState[str]) -> None:
    """Do what the lines of the input say, until there are no more."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        words = line.decode(errors="replace").split()
        try:
            match words:
                case ["order", product_id]:
                    said.set(await place(shop, user, product_id, 1))
                case ["order", product_id, pieces] if pieces.isdigit():
                    said.set(await place(shop, user, product_id, int(pieces)))
                case ["restock"]:
                    await shop.stock.deliver(Deliver(10))
                    said.set("A delivery arrived: 10 of each.")
                case ["quit"]:
                    return
                case []:
                    pass
                case _:
                    said.set(f"What is {' '.join(words)!r}? Say {HELP}")
        except Exception as error:
            said.set(f"{WARN}{describe(error)}{PLAIN}")


async def place(shop: Shop, user: str, product_id: str, pieces: int) -> str:
    if product_id not in await shop.products.ids():
        raise ShopError(f"There is no {product_id!r} here")
    await shop.baskets.put(PutIntoBasket(user, product_id, pieces))
    order = await shop.orders.place(PlaceOrder(user))
    return f"Thank you! Order #{order.id} is placed."
