"""The calling side of a stack: ``python -m benchmarks.rpc.client STACK``.

Starts its server, then takes orders: ``prepare`` a case, take a ``sample`` of one, and ``weigh``
the server under connections or subscriptions. Started by ``conductor``, which also says in JSON
which cores there are, and whether the run is a quick one.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
from time import perf_counter, process_time
from typing import Any

from benchmarks.rpc import stacks
from benchmarks.rpc.cases import LEAST, PINNED
from benchmarks.rpc.cores import keep_on
from benchmarks.rpc.load import Load, load_of
from benchmarks.rpc.orders import Process, carry_out_orders

Cost = tuple[float, float, float]
"""Seconds for one operation: as time goes by, and of the processors for the client and the
server."""


class Worker:
    """The client of one stack, and what was prepared in it."""

    def __init__(self, stack: Any, server: Process, cores: list[int], quick: bool) -> None:
        self.stack = stack
        self.server = server
        self.cores = cores
        self.crowd_size = 100 if quick else 1_000
        self.seconds = 0.02 if quick else 0.06
        self.loops = 1 if quick else 3
        self.client: Any = None
        self.crowd: Any = None
        self.prepared: dict[str, tuple[Load, int]] = {}

    async def prepare(self, case: str) -> int:
        """Set a case up; returns how many operations a loop has."""
        load = load_of(case, await self._caller(case), self.server)
        least = LEAST.get(case, 1)
        await load(least)
        count = least
        while True:
            start = perf_counter()
            done = await load(count)
            elapsed = perf_counter() - start
            if elapsed >= self.seconds / 4:
                break
            count = 4 * done
        count = max(least, int(done * self.seconds / elapsed))
        self.prepared[case] = load, count
        return count

    async def sample(self, case: str) -> Cost:
        """The least that an operation costs in some loops, after the garbage was collected."""
        load, count = self.prepared[case]
        self._choose_cores(case)
        gc.collect()
        self.server.ask("collect")
        costs = [await self._once(load, count) for _ in range(self.loops)]
        elapsed, client, server = map(min, zip(*costs, strict=True))
        return elapsed, client, server

    async def weigh(self) -> dict[str, float]:
        """Bytes that the server takes for a connection, and for a subscription where there are
        such.

        Some of both come before, for what is made once.
        """
        crowd = self.stack.Crowd()
        await crowd.connect(self.server.first, self.crowd_size // 10)
        before = self.server.ask("weight")
        await crowd.connect(self.server.first, self.crowd_size)
        weights = {"connection": (self.server.ask("weight") - before) / self.crowd_size}
        if hasattr(crowd, "subscribe"):
            subscriptions = 10 * self.crowd_size
            await crowd.subscribe(range(-subscriptions // 10, 0))
            before = self.server.ask("weight")
            await crowd.subscribe(range(1_000_000, 1_000_000 + subscriptions))
            weights["subscription"] = (self.server.ask("weight") - before) / subscriptions
        return weights

    async def _caller(self, case: str) -> Any:
        if case == "broadcast":
            if self.crowd is None:
                self.crowd = self.stack.Crowd()
                await self.crowd.connect(self.server.first, self.crowd_size)
            return self.crowd
        if self.client is None:
            self.client = self.stack.Client()
            await self.client.connect(self.server.first)
        return self.client

    def _choose_cores(self, case: str) -> None:
        if self.cores:
            own = case == PINNED and len(self.cores) > 1
            keep_on(os.getpid(), self.cores[:1] if own else self.cores)
            keep_on(self.server.process.pid, self.cores[-1:] if own else self.cores)

    async def _once(self, load: Load, count: int) -> Cost:
        server_start = self.server.ask("cpu")
        client_start = process_time()
        start = perf_counter()
        done = await load(count)
        elapsed = perf_counter() - start
        client = process_time() - client_start
        server = self.server.ask("cpu") - server_start
        return elapsed / done, client / done, server / done


async def serve(stack: Any, server: Process, cores: list[int], quick: bool) -> None:
    """Take orders until the process ends."""
    assert server.first, "the port"
    worker = Worker(stack, server, cores, quick)
    await carry_out_orders(
        None, {"prepare": worker.prepare, "sample": worker.sample, "weigh": worker.weigh}
    )


def main(name: str, options: dict[str, Any]) -> None:
    """Start the server, then take orders; or say what is not installed."""
    try:
        stack = stacks.load(name)
    except ImportError as error:
        print(json.dumps(str(error)))
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.rpc.server", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    asyncio.run(serve(stack, Process(process, f"The server of {name}"), **options))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
