"""What the servers that run under uvicorn have in common."""

import asyncio
import socket
from typing import Any

import uvicorn


class UvicornServer:
    """Runs an ASGI application on a free port of the loopback interface, with asyncio's own event
    loop and without an access log.
    """

    ws = "auto"
    """uvicorn's option: what speaks WebSocket."""

    def application(self) -> Any:
        """The ASGI application to run."""
        raise NotImplementedError

    async def start(self) -> int:
        """Listen; returns the port."""
        # asyncio turns Nagle's algorithm off only where the protocol is given.
        listening = socket.socket(proto=socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        listening.listen(2048)
        config = uvicorn.Config(
            self.application(),
            loop="asyncio",
            ws=self.ws,
            lifespan="off",
            access_log=False,
            log_level="warning",
        )
        self.server = uvicorn.Server(config)
        self.task = asyncio.create_task(self.server.serve(sockets=[listening]))
        while not self.server.started:
            if self.task.done():
                await self.task
            await asyncio.sleep(0.01)
        return int(listening.getsockname()[1])
