"""What every worker process does: it answers requests over pipes, until it is told to end.

It reads requests as lines of JSON, `[number, verb, arguments]`, answers each with
`[number, "ok", value]` or `[number, "error", [type, text]]`, and announces what happens to it by
`[null, event, text]`. `tests.hosts.nursery` starts it, and `Host` in `tests.hosts.hosts` speaks
with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from typing import Any

import msgspec

from afresh import App

from .faults import Fault, Faults


class PipeWorker:
    """The app of this process; the public methods of subclasses are what can be asked of it."""

    app: App

    def __init__(self) -> None:
        self.faults = Faults(lambda point: tell(None, "reached", point))
        self.tasks: dict[int, asyncio.Task[Any]] = {}

    async def fault(self, fault: dict[str, Any]) -> None:
        """Lay a fault ahead."""
        self.faults.ahead.append(msgspec.convert(fault, Fault))

    async def forget_faults(self) -> None:
        """Take away what lies ahead."""
        self.faults.ahead.clear()

    async def health(self) -> dict[str, Any]:
        return self.app.health()

    async def started(self) -> None:
        """Is called once the app has started."""

    async def answer(self, number: int, verb: str, args: list[Any]) -> None:
        """Do what a request asks for."""
        try:
            value = await getattr(self, verb)(*args)
        except asyncio.CancelledError:
            tell(number, "error", ["CancelledError", ""])
        except Exception as error:
            logging.getLogger("tests.hosts").info("%s failed", verb, exc_info=True)
            tell(number, "error", [type(error).__name__, str(error)])
        else:
            tell(number, "ok", value)
        finally:
            del self.tasks[number]


def tell(number: int | None, event: str, value: Any) -> None:
    """Write a line to whoever started this process."""
    os.write(1, json.dumps([number, event, value], default=msgspec.to_builtins).encode() + b"\n")


async def serve(worker: PipeWorker) -> None:
    """Run the app of a worker until its input ends, or it gets SIGTERM as of a deployment."""
    loop = asyncio.get_running_loop()
    requests = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    loop.add_signal_handler(signal.SIGTERM, requests.feed_eof)
    async with worker.app:
        await worker.started()
        tell(None, "started", os.getpid())
        while line := await requests.readline():
            number, verb, args = json.loads(line)
            worker.tasks[number] = asyncio.create_task(worker.answer(number, verb, args))
        for task in list(worker.tasks.values()):
            task.cancel()
        begun = time.monotonic()
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        tell(None, "closed", time.monotonic() - begun)
