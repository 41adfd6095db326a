"""A site to test `afresh.js` against: services, and whatever page a test asks for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from afresh import App, ComputeService, NoWait, RpcStream, compute_method, rpc_error
from afresh.errors import DisconnectedError


@rpc_error
class OutOfNumbers(Exception):
    """What the page may know."""


@dataclass(frozen=True)
class Item:
    id: int
    name: str
    tags: tuple[str, ...] = ()


class Numbers(ComputeService):
    """Numbers by name, and what else a page may ask for."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.items_by_id = {1: Item(1, "<b>one</b>", ("x", "y")), 2: Item(2, 'two "2"')}
        self.notes: list[str] = []
        self.runs: dict[str, int] = {}

    @compute_method
    async def get(self, name: str) -> int:
        if name == "broken":
            raise OutOfNumbers("there is none")
        return self.values.get(name, 0)

    @compute_method
    async def names(self) -> tuple[str, ...]:
        return tuple(self.values)

    @compute_method
    async def items(self) -> tuple[Item, ...]:
        return tuple(self.items_by_id.values())

    @compute_method
    async def item(self, item_id: int) -> Item:
        return self.items_by_id[item_id]

    async def set(self, name: str, value: int = 1) -> int:
        is_new = name not in self.values
        self.values[name] = value
        self.get.invalidate(name)
        if is_new:
            self.names.invalidate()
        return value

    async def rename(self, item_id: int, name: str) -> None:
        self.items_by_id[item_id] = Item(item_id, name, self.items_by_id[item_id].tags)
        self.items.invalidate()
        self.item.invalidate(item_id)

    async def remove(self, item_id: int) -> None:
        del self.items_by_id[item_id]
        self.items.invalidate()

    async def fail(self, text: str) -> None:
        raise OutOfNumbers(text)

    async def slow(self, name: str, seconds: float) -> int:
        """How often this was called for that name, when some time has passed."""
        self.runs[name] = self.runs.get(name, 0) + 1
        await asyncio.sleep(seconds)
        return self.runs[name]

    async def count(self, up_to: int, pause: float = 0) -> RpcStream[int]:
        async def numbers() -> AsyncIterator[int]:
            for number in range(up_to):
                yield number
                if pause:
                    await asyncio.sleep(pause)

        return RpcStream(numbers())

    async def note(self, text: str) -> NoWait:
        self.notes.append(text)


app = App()
numbers = app.add(Numbers())
_pages: dict[str, str] = {}


async def page(request: Request) -> Response:
    """A page that was put here by a test."""
    name = request.path_params["name"]
    if request.method == "PUT":
        _pages[name] = (await request.body()).decode()
        return PlainTextResponse("")
    return HTMLResponse(_pages[name])


async def change(request: Request) -> Response:
    """Change a number from outside."""
    await numbers.set(request.path_params["name"], int(request.query_params["to"]))
    return PlainTextResponse("")


async def followers(request: Request) -> Response:
    """How many calls of pages are open: subscriptions, above all. With `?kept`, also of pages that
    are not connected now, and may come back.
    """
    peers = [peer for peer in app.hub.peers if "kept" in request.query_params or peer.is_connected]
    return PlainTextResponse(str(sum(len(peer.inbound) for peer in peers)))


async def cut(_: Request) -> Response:
    """Break all connections, as a proxy might."""
    for peer in app.hub.peers:
        if peer.link is not None:
            peer.link.close(DisconnectedError("cut"), 1011)
    return PlainTextResponse("")


async def said(_: Request) -> Response:
    """What pages sent without waiting."""
    return PlainTextResponse(",".join(numbers.notes))


async def module(request: Request) -> Response:
    """A file of the Node packages that AFRESH_NODE_MODULES names."""
    return FileResponse(Path(os.environ["AFRESH_NODE_MODULES"]) / request.path_params["path"])


site = app.asgi()
site.router.routes += [
    Route("/pages/{name}", page, methods=["GET", "PUT"]),
    Route("/change/{name}", change),
    Route("/followers", followers),
    Route("/cut", cut),
    Route("/said", said),
    Route("/node_modules/{path:path}", module),
]
