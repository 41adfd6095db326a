"""Puts the backstage together: the processes beside the shop, the board, and the levers."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from afresh import App

from ..places import KnownPlaces
from .board import LiveBoard
from .contracts import Backstage
from .mischief import BrokerMischief
from .processes import ChildProcesses
from .servers import Program

PATH = "/backstage"
"""Where the process of the Python page has it."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the backstage is made of.

    Args:
        folder: where logs go, and what the broker and the departments keep.
        broker: the address of the message broker.
        server: the broker, where it is one of ours.
        databases: of the departments, by their names.
        ports: of the departments.
        host: where pages listen.
        port: of the process that has the backstage.
    """

    folder: str
    broker: str
    server: Program | None
    databases: dict[str, str]
    ports: dict[str, int]
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where processes report to."""
        return f"ws://127.0.0.1:{self.port}{PATH}/rpc/ws"

    @property
    def ready_url(self) -> str:
        """Answers when the broker serves."""
        return f"http://127.0.0.1:{self.port}{PATH}/ready"

    def programs(self) -> list[Program]:
        """What is to be started."""
        departments = [
            Program(
                name,
                name.capitalize(),
                [
                    sys.executable,
                    *("-m", "examples.shop", "department", name),
                    *("--host", self.host, "--port", str(port)),
                    *("--database", self.databases[name], "--broker", self.broker),
                    *("--backstage", self.url),
                ],
                port,
                f"examples.shop department {name}",
                url=f"http://{self.host}:{port}/",
            )
            for name, port in self.ports.items()
        ]
        return departments if self.server is None else [self.server, *departments]


class RunningBackstage:
    """The backstage of this process.

    Args:
        stage: what it is made of.
    """

    def __init__(self, stage: Stage) -> None:
        folder = Path(stage.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.stage = stage
        self.board = LiveBoard()
        self._processes = ChildProcesses(stage.programs(), folder, self._tell)
        self._mischief = BrokerMischief(stage.broker, self.board, self._processes)
        self._app = App()
        self._stack = AsyncExitStack()
        self._is_ready = False
        self.services = Backstage(
            self._app.add(self.board),
            self._app.add(self._processes),
            self._app.add(self._mischief),
            self._app.add(KnownPlaces()),
        )

    def _tell(self, name: str, words: str) -> None:
        self.board.tell("process", words, process=name)

    def asgi(self) -> Starlette:
        """The ASGI app that processes report to; "/ready" says whether the broker serves."""
        asgi = self._app.asgi()
        asgi.router.routes.append(Route("/ready", self._say_ready))
        return asgi

    async def _say_ready(self, request: Request) -> Response:
        return Response(status_code=204 if self._is_ready else 503)

    async def start(self) -> None:
        """Start what departments and the shop need; the broker serves when this returns."""
        self._stack.push_async_callback(self._app.aclose)
        await self._app.start()
        await self._stack.enter_async_context(self.board.watching())
        self._stack.push_async_callback(self._processes.aclose)
        server = self.stage.server
        serves = await self._processes.start_broker()
        if server is not None and not serves:
            log = f"{self.stage.folder}/broker.log"
            print(f"{server.title} does not serve, and orders wait for it; see {log}", flush=True)
        # A broker without a past is told who listens, so that nothing is lost while they start.
        settled = Path(server.store) / "settled" if server is not None and serves else None
        is_new = settled is not None and not settled.exists()
        await self._stack.enter_async_context(self._mischief.connected(is_new=is_new))
        if settled is not None:
            settled.touch()
        if server is None:  # nobody knows what a broker of others knows: who listens goes first
            await self._processes.start_others()
            await self._processes.ready()
        self._is_ready = True

    async def start_departments(self) -> None:
        """Start the departments, unless they run already, and wait for none of them."""
        if self.stage.server is not None:
            await self._processes.start_others()

    async def aclose(self) -> None:
        """End everything in order: the departments, then the broker."""
        await self._stack.aclose()
