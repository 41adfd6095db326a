"""FastAPI under uvicorn, called with aiohttp over connections that are kept; streams are
server-sent events from sse-starlette.
"""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from fastapi import FastAPI
from sse_starlette import EventSourceResponse

from benchmarks.rpc.stacks.uvicorn_server import UvicornServer


class Server(UvicornServer):
    """Two routes: a sum, and a stream of texts."""

    def application(self) -> Any:
        application = FastAPI()

        @application.get("/add")
        async def add(a: int, b: int) -> int:
            return a + b

        @application.get("/items")
        async def items(size: int, count: int) -> EventSourceResponse:
            return EventSourceResponse(texts(size, count))

        return application


async def texts(size: int, count: int) -> AsyncIterator[dict[str, str]]:
    item = "x" * size
    for _ in range(count):
        yield {"data": item}


class Client:
    """One session with aiohttp's default pool of a hundred connections."""

    async def connect(self, port: int) -> None:
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{port}")

    async def add(self, a: int, b: int) -> int:
        async with self.session.get("/add", params={"a": a, "b": b}) as response:
            return await response.json()  # type: ignore[no-any-return]

    async def read(self, size: int, count: int) -> int:
        """Read a stream of ``count`` items of ``size`` bytes; returns how many came."""
        read = 0
        parameters = {"size": size, "count": count}
        async with self.session.get("/items", params=parameters) as response:
            async for line in response.content:
                if line.startswith(b"data:"):
                    read += 1
        return read
