"""`Host`: a worker process as a test sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.servers.processes import tell_reaper

from .nursery import fork_host

PATIENCE = 30.0
"""Seconds; machines that run tests may be busy."""


class HostError(Exception):
    """A request failed in the host; `kind` is the type of the error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class HostGone(Exception):
    """The process ended before it answered."""


class Host:
    """A process that runs `tests.hosts.host`, or another program of that kind.

    Args:
        database: the URL of its database.
        log: the file that it logs to.
        program: the module that it runs.
        setup: what else the program's `Setup` takes.
    """

    def __init__(
        self, database: str, log: Path, *, program: str = "tests.hosts.host", **setup: Any
    ) -> None:
        self.log = log
        self._setup = {"program": program, "database": database, **setup}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._events: dict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self._number = 0

    async def start(self) -> None:
        """Start the process; `ready` waits until it serves."""
        stdin, requests = os.pipe()
        self._requests: int | None = requests
        answers, stdout = os.pipe()
        with self.log.open("ab") as log:
            setup = json.dumps(self._setup).encode()
            self._process_id = fork_host(setup, stdin=stdin, stdout=stdout, stderr=log.fileno())
        os.close(stdin)
        os.close(stdout)
        reader = asyncio.StreamReader(limit=2**24)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(answers, "rb", 0)
        )
        self._listening = asyncio.create_task(self._listen(reader))

    async def ready(self) -> None:
        await self._event("started")

    # -- what it is asked

    def ask(self, verb: str, *args: Any) -> asyncio.Future[Any]:
        """Send a request, and return what the answer comes in."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        try:
            if self._requests is None:
                raise BrokenPipeError
            os.write(self._requests, json.dumps([self._number, verb, args]).encode() + b"\n")
        except OSError:
            answer.set_exception(HostGone(f"The host has ended; see {self.log}."))
        return answer

    async def call(self, kind: str, **fields: Any) -> Any:
        """Have a command handled; returns its result."""
        async with asyncio.timeout(PATIENCE):
            return await self.ask("call", kind, fields)

    async def read(self, method: str, *args: int) -> Any:
        """Call a compute method."""
        async with asyncio.timeout(PATIENCE):
            return await self.ask("read", method, *args)

    async def follow(self, value: Any, method: str, *args: int) -> None:
        """Wait until a compute method gives a value there, because the old one goes stale."""
        async with asyncio.timeout(PATIENCE):
            await self.ask("follow", value, method, *args)

    async def fault(self, point: str, action: str, **options: Any) -> None:
        """Lay a fault ahead of it; see `tests.hosts.faults`."""
        await self.ask("fault", {"point": point, "action": action, **options})

    async def reached(self, point: str) -> None:
        """Wait until it has come to a fault."""
        found = await self._event("reached")
        assert found == point

    async def _event(self, kind: str) -> Any:
        async with asyncio.timeout(PATIENCE):
            waiting = asyncio.ensure_future(self._events[kind].get())
            await asyncio.wait({waiting, self._listening}, return_when="FIRST_COMPLETED")
            if waiting.done():
                return waiting.result()
            waiting.cancel()
            raise HostGone(f"The host has ended:\n{self.log.read_text()[-3_000:]}")

    # -- its end

    def pause(self) -> None:
        """Let it stand still, as a host that swaps or is migrated does."""
        os.kill(self._process_id, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self._process_id, signal.SIGCONT)

    async def gone(self) -> None:
        """Wait until the process has ended."""
        async with asyncio.timeout(PATIENCE):
            await self._listening
        tell_reaper(f"-process {self._process_id}")
        self._let_go()

    async def ends_within(self, seconds: float) -> bool:
        """Wait so long for the end of the process; returns whether it came."""
        await asyncio.wait({self._listening}, timeout=seconds)
        return self._listening.done()

    async def kill(self) -> None:
        """End it at once."""
        if not self._listening.done():
            with contextlib.suppress(ProcessLookupError):  # it has ended just now
                os.kill(self._process_id, signal.SIGKILL)
        await self.gone()

    async def stop(self) -> None:
        """End it in order, as a deployment does."""
        self._let_go()
        await self.gone()

    async def terminate(self) -> float:
        """Send SIGTERM, and wait for the end; returns how long the app took to close."""
        os.kill(self._process_id, signal.SIGTERM)
        seconds: float = await self._event("closed")
        await self.gone()
        return seconds

    def _let_go(self) -> None:
        if self._requests is not None:
            os.close(self._requests)
            self._requests = None

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            number, event, value = json.loads(line)
            if number is None:
                self._events[event].put_nowait(value)
                continue
            answer = self._answers.pop(number)
            if answer.done():
                continue
            if event == "ok":
                answer.set_result(value)
            else:
                answer.set_exception(HostError(*value))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(HostGone(f"The host ended; see {self.log}."))
                answer.exception()  # whoever waits will see it; nobody has to


class Hosts:
    """Makes hosts on one database.

    Args:
        database: its URL.
        folder: where they log to.
    """

    def __init__(self, database: str, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.all: list[Host] = []
        self._started = 0

    async def start(self, **setup: Any) -> Host:
        """Start another one; see `tests.hosts.host.Setup`."""
        setup.setdefault("database", self.database)
        self._started += 1
        host = Host(log=self.folder / f"host{self._started}.log", **setup)
        await host.start()
        self.all.append(host)
        await host.ready()
        return host

    async def pair(self, **setup: Any) -> tuple[Host, Host]:
        """Start two at the same time."""
        async with asyncio.TaskGroup() as group:
            first, second = [group.create_task(self.start(**setup)) for _ in range(2)]
        return first.result(), second.result()

    async def aclose(self) -> None:
        await asyncio.gather(*(host.kill() for host in self.all))


@asynccontextmanager
async def hosts_of(database: str, folder: Path) -> AsyncIterator[Hosts]:
    """`Hosts` that all end with the block."""
    hosts = Hosts(database, folder)
    try:
        yield hosts
    finally:
        await hosts.aclose()
