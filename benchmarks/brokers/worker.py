"""The measuring side of a run: ``python -m benchmarks.brokers.worker OPTIONS``, with JSON that says
where the servers are, and whether the run is a quick one. Started by ``conductor``.
"""

import asyncio
import json
import sys
from functools import partial

from benchmarks.brokers.workloads import WORKLOADS, Servers, weigh
from benchmarks.rpc.orders import carry_out_orders
from benchmarks.worker import Worker, about


async def main() -> None:
    """Take part in a run."""
    servers = Servers(**json.loads(sys.argv[1]))
    # Each sample has its number of messages, whatever time that takes.
    worker = Worker({name: partial(prepare, servers) for name, prepare in WORKLOADS.items()}, 1.0)

    async def weighed(workload: str) -> dict[str, float]:
        return await weigh(servers)

    orders = {
        "prepare": worker.prepare,
        "sample": worker.sample,
        "finish": worker.finish,
        "weigh": weighed,
    }
    await carry_out_orders(about(None), orders)


if __name__ == "__main__":
    asyncio.run(main())
