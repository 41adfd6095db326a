"""The serving side of a stack: ``python -m benchmarks.rpc.server STACK``.

Says the port it listens on, then takes orders. Started by ``client``.
"""

import asyncio
import gc
import sys
from time import process_time

from benchmarks.rpc import stacks
from benchmarks.rpc.orders import carry_out_orders
from benchmarks.workloads.memory import resident


async def cpu() -> float:
    """CPU seconds that this process has used."""
    return process_time()


async def collect() -> int:
    """Collect garbage."""
    return gc.collect()


async def weight() -> int:
    """Bytes of this process in memory."""
    return resident()


async def main(stack: str) -> None:
    """Serve until the process ends."""
    server = stacks.load(stack).Server()
    port = await server.start()
    own = getattr(server, "orders", {})
    await carry_out_orders(port, {"cpu": cpu, "collect": collect, "weight": weight, **own})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
